import { join, resolve } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import type { z } from 'zod';
import { QueueError } from '../../common/platform/errors.js';
import { readTextFile } from '../../common/platform/linux.js';
import { GEOMETRY_KEYS, portablePath, type QueueSettings, SettingsSchema } from './settings.js';

/** Name of the file with the installed settings, in the directory of the queue. */
export const INSTALLED_SETTINGS_FILE = 'queue.json';

/** A tree of settings that is not validated yet. */
export type RawSettings = { [key: string]: unknown };

/** One source of settings: a file or the flags. */
export interface SettingsLayer {
  values: RawSettings;
  /** Returns the name of the setting at a key path, in the notation of this source. */
  nameOf: (keyPath: readonly string[]) => string;
}

/** The sources from which settings are loaded. */
export interface LoadOptions {
  /** The queue directory as `--queue` gave it. */
  directory?: string;
  /** A settings file as `--config` gave it. */
  configFile?: string;
  /** The settings that flags give. They override the files. */
  flags?: SettingsLayer;
  /** `needed`: the queue must be installed. `none`: install is about to create it. */
  installed: 'needed' | 'none';
}

/**
 * Loads the settings. The sources are, from the lowest to the highest priority: defaults, installed settings,
 * settings file, flags.
 * @throws QueueError `bad-setting` with the file or flag, the key path, the found and the expected value;
 * `not-a-queue` when the directory contains no installed queue
 */
export function loadSettings(options: LoadOptions): QueueSettings {
  const layers: SettingsLayer[] = [];
  if (options.configFile !== undefined) layers.push(fileLayer(options.configFile, 'bad-setting'));
  if (options.flags !== undefined) layers.push(options.flags);
  const directory = directoryOf(options, layers);
  const pinned: SettingsLayer = { values: { directory }, nameOf: () => '--queue' };
  if (options.installed === 'none') return parseLayers([...layers, pinned]);
  const installed = installedLayer(directory);
  const settings = parseLayers([installed, ...layers, pinned]);
  rejectGeometryChange(settings, parseLayers([installed, pinned]), layers);
  return settings;
}

/** Validates one tree of settings and fills in the defaults. @throws QueueError `bad-setting` */
export function parseSettings(values: RawSettings, source = 'settings'): QueueSettings {
  return parseLayers([{ values, nameOf: (keyPath) => `${source}: ${keyPath.join('.')}` }]);
}

/** Formats the installed settings: all settings except the directory, with portable paths. */
export function installedText(settings: QueueSettings): string {
  const { directory, deadLetter, ...rest } = settings;
  const pairs = settings.pairs.map((pair) => ({
    directory: portablePath(directory, pair.directory),
    indexDirectory: portablePath(directory, pair.indexDirectory),
  }));
  const { dataBytes, entries } = deadLetter;
  return `${JSON.stringify({ ...rest, pairs, deadLetter: { dataBytes, entries } }, null, 2)}\n`;
}

function directoryOf(options: LoadOptions, layers: readonly SettingsLayer[]): string {
  const given =
    options.directory ?? layers.map((layer) => layer.values.directory).findLast((d) => d !== undefined);
  if (typeof given === 'string' && given !== '') return resolve(given);
  throw new QueueError(
    'bad-setting',
    'no queue directory: give --queue DIR, or "directory" in the settings file',
  );
}

function installedLayer(directory: string): SettingsLayer {
  const file = join(directory, INSTALLED_SETTINGS_FILE);
  const layer = fileLayer(file, 'not-a-queue');
  if (layer.values.directory === undefined) return layer;
  throw new QueueError(
    'bad-setting',
    `${file}: directory: the installed settings move with the queue and name none`,
  );
}

/** Key of a settings file that tells an editor where the schema is. It is no setting. */
export const SCHEMA_KEY = '$schema';

function fileLayer(file: string, whenMissing: 'bad-setting' | 'not-a-queue'): SettingsLayer {
  const json = readJson(file, whenMissing);
  if (!isTree(json))
    throw new QueueError('bad-setting', `${file}: found ${formatValue(json)}, expected a JSON object`);
  const { [SCHEMA_KEY]: _, ...values } = json;
  return {
    values,
    nameOf: (keyPath) => (keyPath.length === 0 ? file : `${file}: ${keyPath.join('.')}`),
  };
}

function readJson(file: string, whenMissing: 'bad-setting' | 'not-a-queue'): unknown {
  let text: string;
  try {
    text = readTextFile(file);
  } catch (cause) {
    if (cause instanceof QueueError) throw cause;
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unreadable';
    if (whenMissing === 'not-a-queue' && (code === 'ENOENT' || code === 'ENOTDIR')) {
      throw new QueueError('not-a-queue', `${file}: not found, expected an installed queue (see "install")`, {
        cause,
      });
    }
    throw new QueueError('bad-setting', `${file}: cannot be read (${code}), expected a JSON file`, { cause });
  }
  try {
    return JSON.parse(text);
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new QueueError('bad-setting', `${file}: ${oneLine(why)}, expected JSON`, { cause });
  }
}

function parseLayers(layers: readonly SettingsLayer[]): QueueSettings {
  const result = SettingsSchema.safeParse(
    layers.reduce<unknown>((under, layer) => mergeTrees(under, layer.values), {}),
  );
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  throw new QueueError(
    'bad-setting',
    issue === undefined ? 'settings are wrong' : describeIssue(issue, layers),
  );
}

/** Merges two trees key by key. Any other value of `over` replaces the value of `under`. */
function mergeTrees(under: unknown, over: unknown): unknown {
  if (!isTree(under) || !isTree(over)) return over === undefined ? under : over;
  const keys = new Set([...Object.keys(under), ...Object.keys(over)]);
  return Object.fromEntries(
    [...keys].map((key) => [key, mergeTrees(ownValue(under, key), ownValue(over, key))]),
  );
}

function describeIssue(issue: z.core.$ZodIssue, layers: readonly SettingsLayer[]): string {
  const keyPath = issue.path.map(String);
  if (issue.code === 'unrecognized_keys') {
    const unknown = [...keyPath, ...issue.keys.slice(0, 1)];
    return `${sourceOf(unknown, layers).nameOf(unknown)}: unknown setting, expected ${issue.message}`;
  }
  const source = sourceOf(keyPath, layers);
  const value = valueAt(source.values, keyPath);
  const found = value === undefined ? 'it is missing' : `found ${formatValue(value)}`;
  return `${source.nameOf(keyPath)}: ${found}, expected ${issue.message}`;
}

/** Returns the highest layer that has the key path or, if none has it, the longest part of it. */
function sourceOf(keyPath: readonly string[], layers: readonly SettingsLayer[]): SettingsLayer {
  for (let length = keyPath.length; length > 0; length--) {
    const part = keyPath.slice(0, length);
    const layer = layers.findLast((candidate) => valueAt(candidate.values, part) !== undefined);
    if (layer !== undefined) return layer;
  }
  return layers.at(-1) ?? { values: {}, nameOf: (path) => path.join('.') };
}

function rejectGeometryChange(
  settings: QueueSettings,
  installed: QueueSettings,
  layers: readonly SettingsLayer[],
): void {
  const key = GEOMETRY_KEYS.find((name) => !isDeepStrictEqual(settings[name], installed[name]));
  if (key === undefined) return;
  const name = sourceOf([key], layers).nameOf([key]);
  const found = formatValue(settings[key]);
  throw new QueueError(
    'bad-setting',
    `${name}: found ${found}, expected ${formatValue(installed[key])} as the queue was installed; install another queue`,
  );
}

function valueAt(tree: unknown, keyPath: readonly string[]): unknown {
  return keyPath.reduce<unknown>((at, key) => {
    if (Array.isArray(at)) return at[Number(key)];
    return isTree(at) ? ownValue(at, key) : undefined;
  }, tree);
}

function ownValue(tree: RawSettings, key: string): unknown {
  return Object.hasOwn(tree, key) ? tree[key] : undefined;
}

function isTree(value: unknown): value is RawSettings {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Formats a value for an error message, cut to 80 characters. */
function formatValue(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ');
}
