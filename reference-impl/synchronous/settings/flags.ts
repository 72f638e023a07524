import { z } from 'zod';
import { QueueError } from '../../common/platform/errors.js';
import { type RawSettings, SCHEMA_KEY, type SettingsLayer } from './load.js';
import { SettingsSchema } from './settings.js';

/** A command-line flag for one setting. */
export interface SettingFlag {
  /** Name without the dashes, such as `smtp-port` for smtp.port. */
  name: string;
  keyPath: readonly string[];
  /** The form of the value, as the help text shows it. */
  placeholder: string;
  description: string;
}

type Schema = z.core.JSONSchema.BaseSchema;

/** Address of the JSON Schema of settings files. The version is in it, so that an address always means the same form. */
const SETTINGS_SCHEMA_URL = 'https://plugpull.dev/schemas/queue-settings/v1.json';

/** Builds the JSON Schema of settings files from SettingsSchema, the only definition of the settings. */
export function settingsJsonSchema(): Schema {
  const schema = z.toJSONSchema(SettingsSchema, { io: 'input' });
  return {
    $id: SETTINGS_SCHEMA_URL,
    ...schema,
    properties: {
      [SCHEMA_KEY]: { description: 'Location of the JSON Schema of this file, for editors.', type: 'string' },
      ...schema.properties,
    },
    title: 'Settings of a PlugPull queue',
    description:
      'Format of the file for --config. Every key is optional. Install saves its settings in queue.json.',
  };
}

/** Returns one flag for each setting except `directory`, whose flag is `--queue`. */
export function settingFlags(): SettingFlag[] {
  return flagsBelow(z.toJSONSchema(SettingsSchema, { io: 'input' }), []).filter(
    (flag) => flag.name !== 'directory',
  );
}

/** Flag names that are shorter than the key path. */
const SHORT_NAMES: Record<string, string> = { 'delivery.nextHop': 'next-hop', 'delivery.routes': 'routes' };

function flagsBelow(schema: Schema, keyPath: readonly string[]): SettingFlag[] {
  if (schema.properties !== undefined) {
    return Object.entries(schema.properties).flatMap(([key, below]) =>
      typeof below === 'boolean' ? [] : flagsBelow(below, [...keyPath, key]),
    );
  }
  const dotted = keyPath.join('.');
  const name = SHORT_NAMES[dotted] ?? keyPath.map(kebab).join('-');
  return [{ name, keyPath, placeholder: placeholder(dotted), description: schema.description ?? dotted }];
}

function kebab(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function placeholder(dotted: string): string {
  if (dotted === 'pairs') return 'dir[=indexDir],...';
  if (dotted === 'delivery.routes') return 'domain=host:port,...';
  if (/Ms$/.test(dotted)) return 'duration';
  return /Bytes$/.test(dotted) ? 'size' : 'value';
}

/** Converts given flags, by name, into a layer of settings. @throws QueueError `bad-setting` */
export function flagLayer(given: ReadonlyMap<string, string>): SettingsLayer {
  const values: RawSettings = {};
  const flags = settingFlags();
  for (const flag of flags) {
    const text = given.get(flag.name);
    if (text !== undefined) setAt(values, flag.keyPath, settingOf(flag, text));
  }
  const nameOf = (keyPath: readonly string[]) => {
    const flag = flags.find((candidate) => candidate.keyPath.every((key, at) => keyPath[at] === key));
    return flag === undefined ? keyPath.join('.') : `--${flag.name}`;
  };
  return { values, nameOf };
}

/**
 * Converts the text of a flag into the value that a settings file would contain. The schema validates it later.
 */
function settingOf(flag: SettingFlag, text: string): unknown {
  const dotted = flag.keyPath.join('.');
  if (dotted === 'pairs') return text.split(',').map(pairOf);
  if (dotted === 'delivery.routes') return routesOf(flag, text);
  if (text === 'null') return null;
  return text === 'true' || text === 'false' ? text === 'true' : text;
}

function pairOf(text: string): { directory: string; indexDirectory?: string } {
  const at = text.indexOf('=');
  return at < 0 ? { directory: text } : { directory: text.slice(0, at), indexDirectory: text.slice(at + 1) };
}

function routesOf(flag: SettingFlag, text: string): Record<string, string> {
  const routes = text.split(',').map((route) => /^([^=]+)=(.+)$/.exec(route));
  if (routes.includes(null)) {
    throw new QueueError('bad-setting', `--${flag.name}: found "${text}", expected ${flag.placeholder}`);
  }
  return Object.fromEntries(routes.map((match) => [match?.[1] ?? '', match?.[2] ?? '']));
}

function setAt(tree: RawSettings, keyPath: readonly string[], value: unknown): void {
  const [key, ...rest] = keyPath;
  if (key === undefined) return;
  if (rest.length === 0) {
    tree[key] = value;
    return;
  }
  const below: RawSettings = {};
  const existing = tree[key];
  Object.assign(below, typeof existing === 'object' ? existing : {});
  setAt(below, rest, value);
  tree[key] = below;
}
