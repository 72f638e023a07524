import { chmodSync, statSync } from 'node:fs';
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
import { makePassage } from '../host/directories.js';
import { reservePort } from '../host/ports.js';
import type { Registry } from '../host/registry.js';
import { shellQuote } from '../host/shell.js';

/** Image of a disk as it was before a recording, and the recording. Both are files of an unpacked bundle. */
export interface RecordedDisk {
  image: string;
  recording: Recording;
}

/**
 * Opens the recorded disk of a bundle.
 * @param dir directory of the unpacked bundle.
 * @param end number of log entries that count; default: all.
 * @returns undefined when the bundle has no recorded disk.
 * @throws KitError bad-bundle when the log has another format or version, or is cut off.
 */
export function openRecordedDisk(dir: string, end?: number): RecordedDisk | undefined {
  const files = regularFiles(dir);
  const log = files.find((name) => name.endsWith('writes.log'));
  const image = files.find((name) => name.endsWith('.img'));
  if (log === undefined || image === undefined) return undefined;
  try {
    const recording = openRecording(join(dir, log), end);
    checkWithinDisk(recording, statSync(join(dir, image)).size);
    return { image: join(dir, image), recording };
  } catch (error) {
    if (error instanceof LogWritesError) throw new KitError('bad-bundle', messageOf(error), { cause: error });
    throw error;
  }
}

/**
 * Checks that every write of a log is within its disk. A log that was made by hand could name any position, and the kit
 * would try to write there.
 * @throws LogWritesError; the recording is then closed.
 */
export function checkWithinDisk(recording: Recording, diskBytes: number): void {
  const { log, model } = recording;
  const wrong = model.entries.find(({ offset, lengthBytes }) => offset + lengthBytes > diskBytes);
  if (wrong === undefined) return;
  recording.close();
  const end = wrong.offset + wrong.lengthBytes;
  throw new LogWritesError(
    'damaged',
    `${log.path}: entry ${wrong.index} writes to byte ${end}, expected a disk of ${diskBytes} bytes`,
  );
}

/**
 * Returns the crash state that has every write before entry `entry` of the log, and no later write.
 * @throws KitError bad-usage when the log has fewer entries.
 */
export function stateBefore({ recording: { model } }: RecordedDisk, entry: number): CrashState {
  const count = model.entries.length;
  if (entry > count) {
    throw new KitError('bad-usage', `--at ${entry}: expected 0 to ${count}, the entries of the log`);
  }
  return { prefix: entry, kept: model.optional(entry), torn: NOTHING_TORN };
}

/**
 * Checks that this process may mount disks.
 * @throws KitError target-unavailable when it does not run as root.
 */
export function requireRoot(): void {
  if (process.getuid?.() === 0) return;
  throw new KitError('target-unavailable', 'mounting a disk needs root: run it with sudo');
}

/**
 * Makes the disk of a crash state in `dir` and mounts it. The disk stays mounted until `plugpull clean`. The
 * mount and the loop device are registered before they are made.
 * @returns the mount point.
 * @throws KitError target-unavailable when the disk cannot be mounted.
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
  makePassage(mountPoint);
  copySparse(disk.image, image);
  chmodSync(image, 0o600);
  materialise(disk.recording, state, image);
  try {
    // The image may be a stranger's: nothing on it is started as root by mistake.
    mountFilesystem(filesystem, attachLoop(image), mountPoint, { noexec: true });
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
 * Describes how to start the services of a target on given data by hand, as lines for a terminal: each
 * service normally, and under a debugger. The sink is a port without a listener, because the recovery is to
 * be inspected and not the deliveries.
 */
export async function describeManualStart(
  target: Target,
  dataDir: string,
  scratch: string,
): Promise<string[]> {
  const ports = new Map<string, number>();
  for (const name of portNames(target)) ports.set(name, await reservePort());
  const unusedSink = `127.0.0.1:${await reservePort()}`;
  const values = { dir: target.dir, node: process.execPath, data: dataDir, scratch, sink: unusedSink, ports };
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
