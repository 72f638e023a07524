import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { KitError, messageOf } from '../../conformance/errors.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { expandCommand, portNames } from '../../conformance/target-file/placeholders.js';
import { materialise, openRecording, type Recording } from '../../faults/crash-states/materialise.js';
import { regularFiles } from '../../faults/files/walk.js';
import { dropFilesystem, type Filesystem, mountFilesystem } from '../../faults/power/filesystem.js';
import { attachLoop, detachLoops } from '../../faults/power/loop.js';
import { copySparse } from '../../faults/power/mounts.js';
import { LogWritesError } from '../../faults/write-log/reader.js';
import { type CrashState, NOTHING_TORN } from '../../faults/write-log/state.js';
import { freePort } from '../host/ports.js';
import type { Registry } from '../host/registry.js';
import { shellQuote } from '../host/shell.js';

/** The image before a recording, and the recording, among the files of an unpacked bundle. */
export interface RecordedDisk {
  image: string;
  recording: Recording;
}

/**
 * The recorded disk of a bundle; undefined when it has none.
 * @param end so many entries of the log count; default: all.
 * @throws KitError bad-bundle when the log is foreign, of another version, or cut off.
 */
export function openRecordedDisk(dir: string, end?: number): RecordedDisk | undefined {
  const files = regularFiles(dir);
  const log = files.find((name) => name.endsWith('writes.log'));
  const image = files.find((name) => name.endsWith('.img'));
  if (log === undefined || image === undefined) return undefined;
  try {
    return { image: join(dir, image), recording: openRecording(join(dir, log), end) };
  } catch (error) {
    if (error instanceof LogWritesError) throw new KitError('bad-bundle', messageOf(error), { cause: error });
    throw error;
  }
}

/** All that was written before entry `entry` of the log is there, and nothing after it. */
export function stateBefore({ recording: { model } }: RecordedDisk, entry: number): CrashState {
  const count = model.entries.length;
  if (entry > count) {
    throw new KitError('bad-usage', `--at ${entry}: expected 0 to ${count}, the entries of the log`);
  }
  return { prefix: entry, kept: model.optional(entry), torn: NOTHING_TORN };
}

/** @throws KitError target-unavailable */
export function requireRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new KitError('target-unavailable', 'mounting a disk needs root: run it with sudo');
}

/**
 * Makes the disk of a state below `dir` and mounts it, until `clean`; all is registered before.
 * @returns where it is mounted.
 * @throws KitError target-unavailable where nothing can be mounted.
 */
export function mountState(
  disk: RecordedDisk,
  state: CrashState,
  filesystem: Filesystem,
  dir: string,
  registry: Registry,
): string {
  requireRoot();
  const image = join(dir, 'state.img');
  const mountPoint = join(dir, 'disk');
  const loop = { kind: 'loop', path: image } as const;
  const mount = { kind: 'mount', path: mountPoint } as const;
  registry.made(loop);
  registry.made(mount);
  mkdirSync(mountPoint, { recursive: true });
  copySparse(disk.image, image);
  materialise(disk.recording, state, image);
  try {
    mountFilesystem(filesystem, attachLoop(image), mountPoint);
  } catch (error) {
    dropFilesystem(mountPoint);
    registry.gone(mount);
    detachLoops(image);
    registry.gone(loop);
    throw new KitError('target-unavailable', `the disk cannot be mounted: ${messageOf(error)}`, {
      cause: error,
    });
  }
  return mountPoint;
}

/**
 * How to start the services of a target on some data by hand, as lines for a terminal: each as it is, and under a
 * debugger. What a target pushes to goes nowhere: its recovery is to be looked at, not its deliveries.
 */
export async function describeManualStart(target: Target, dataDir: string): Promise<string[]> {
  const ports = new Map<string, number>();
  for (const name of portNames(target)) ports.set(name, await freePort(new Set(ports.values())));
  const unusedSink = `127.0.0.1:${await freePort(new Set(ports.values()))}`;
  const values = { dir: target.dir, node: process.execPath, data: dataDir, sink: unusedSink, ports };
  const lines = ["start the target's recovery by hand, each service in a terminal of its own:"];
  for (const [name, { command }] of Object.entries(target.services)) {
    const args = expandCommand(command, values);
    lines.push(`  ${name}: ${args.map(shellQuote).join(' ')}`);
    lines.push(
      `  ${' '.repeat(name.length)}  under a debugger: ${debuggerCommand(args).map(shellQuote).join(' ')}`,
    );
  }
  const restore = target.crashStates?.restore;
  if (restore !== undefined) {
    const queue = join(dataDir, target.crashStates?.queue ?? '.');
    const request = shellQuote(JSON.stringify({ queue }));
    const restoreArgs = expandCommand(restore, values);
    lines.push(`or let its program restore: echo ${request} | ${restoreArgs.map(shellQuote).join(' ')}`);
  }
  if (target.verify !== undefined) {
    lines.push(`and its own check: ${expandCommand(target.verify, values).map(shellQuote).join(' ')}`);
  }
  return lines;
}

function debuggerCommand([program = '', ...args]: readonly string[]): string[] {
  if (program === process.execPath || /(^|\/)node(js)?$/.test(program))
    return [program, '--inspect-brk', ...args];
  if (/(^|\/)python[\d.]*$/.test(program)) return [program, '-m', 'pdb', ...args];
  return ['gdb', '--args', program, ...args];
}
