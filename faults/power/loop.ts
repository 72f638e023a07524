import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { runTool } from './mounts.js';

/**
 * Attaches a loop device to a file and returns the path of the device.
 *
 * It uses direct I/O: requests then reach the file merged as the filesystem made them, and not page by page
 * out of a second cache (an msync of 64 KiB takes 0.4 ms instead of 1.4 ms). A flush of the device is an
 * fsync of the file either way. On kernels before 6.6 a file on a tmpfs has no direct I/O, and the device is
 * attached without it.
 *
 * @param flushes `dropped`: flushes of the device do nothing. Use it for data that need not survive a crash
 *   of this machine. Crash states are mounted and restored in 80 % of the time then.
 */
export function attachLoop(file: string, flushes: 'passed-on' | 'dropped' = 'passed-on'): string {
  const device = attach(file);
  try {
    setCache(device, flushes === 'passed-on' ? WRITE_BACK : WRITE_THROUGH);
  } catch (error) {
    // With flushes the device works as well and is only slower.
    if (flushes === 'dropped') return device;
    detachLoop(device);
    throw error;
  }
  return device;
}

function attach(file: string): string {
  const losetup = (...flags: string[]) => runTool('losetup', ['--find', '--show', ...flags, file]).trim();
  try {
    return losetup('--direct-io=on');
  } catch (error) {
    if (!/Invalid argument/.test(String(error))) throw error;
    return losetup();
  }
}

/** Cache setting of the kernel for a device with a cache, which must be flushed. */
const WRITE_BACK = 'write back';
/** Cache setting of the kernel for a device without a cache. */
const WRITE_THROUGH = 'write through';

/**
 * Sets the cache setting of a loop device. The setting survives a change of the file: the previous user of
 * the same device may have left `write through`. Then no flush would reach the file or be recorded, and every
 * correct queue would seem to lose messages.
 */
function setCache(device: string, cache: string): void {
  const setting = join('/sys/block', basename(device), 'queue/write_cache');
  if (readFileSync(setting, 'utf8').trim() !== cache) writeFileSync(setting, cache);
}

/** Lists every loop device that is attached to a file. */
export function loopsOf(file: string): string[] {
  return readdirSync('/sys/block')
    .filter((name) => name.startsWith('loop') && backingFile(name) === file)
    .map((name) => `/dev/${name}`);
}

function backingFile(name: string): string | undefined {
  try {
    const text = readFileSync(join('/sys/block', name, 'loop/backing_file'), 'utf8');
    return text.trim().replace(/ \(deleted\)$/, '');
  } catch {
    return undefined;
  }
}

/** Detaches every loop device from a file. Returns true when there was one. */
export function detachLoops(file: string): boolean {
  const devices = loopsOf(file);
  for (const device of devices) detachLoop(device);
  return devices.length > 0;
}

/**
 * Detaches a loop device. The kernel delays this until the last mount of the device in any mount namespace is
 * gone.
 */
export function detachLoop(device: string): void {
  try {
    // The next user of this device number may need flushes.
    setCache(device, WRITE_BACK);
    runTool('losetup', ['--detach', device]);
  } catch (error) {
    // An earlier detach was delayed, and the device has disappeared in the meantime.
    if (!/No such device|ENOENT/.test(String(error))) throw error;
  }
}
