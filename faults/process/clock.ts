import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Fault, FaultContext, Injection, Service } from '../fault.js';
import { hit, killServices, liveServices, miss, scopeOf } from '../injection.js';
import { AVAILABLE } from '../programs.js';
import { logUniformInt } from '../random-choice.js';
import { sleep, until } from '../waiting.js';

const LIBRARY_FOLDERS = ['/usr/lib', '/usr/local/lib', '/usr/lib64', '/lib'];
const LIBRARY = 'libfaketimeMT.so.1';
const SHARED_MEMORY_DIR = '/dev/shm';
/** Upper bound for loading the library into a started service, in ms. */
const LOAD_TIMEOUT_MS = 2000;
const MAX_JUMPS = 3;
/** Largest offset from the real time, in seconds: 90 days. */
const MAX_JUMP_S = 90 * 24 * 3600;

/**
 * Restarts services with a wall clock that the kit sets. The clock is wrong at the start, and then jumps
 * forward and back. The monotonic clock is left alone, because setting a real clock does not change it
 * either.
 */
export const clock: Fault = {
  name: 'clock',
  family: 'clock',
  summary: 'the wall clock jumps forward and back (libfaketime): order is not time',
  needs: { target: 'up', disk: 'any' },
  async available() {
    if (faketimeLibrary() !== undefined) return AVAILABLE;
    return {
      available: false,
      why: 'libfaketime is not installed',
      remedy: 'install the package libfaketime',
    };
  },
  async inject(context: FaultContext): Promise<Injection> {
    const library = faketimeLibrary();
    if (library === undefined) return miss('libfaketime is gone');
    const up = liveServices(context);
    const services = context.random.int(2) === 0 ? up : up.slice(0, 1);
    const jumps = Array.from({ length: 1 + context.random.int(MAX_JUMPS) }, () => drawJump(context));
    const killed = await killServices(services);
    setClock(context, jumps[0] ?? 0);
    for (const service of services) await service.start([], faketimeEnvironment(context, library));
    const isLoaded = await until(() => services.some(hasLibrary), LOAD_TIMEOUT_MS, context.signal);
    for (const offsetS of jumps.slice(1)) {
      await context.waitForConfirms(1 + context.random.int(20), 1000);
      setClock(context, offsetS);
    }
    await sleep(100, context.signal);
    const detail = `clock of ${killed.join(', ')} off by ${jumps.map((seconds) => `${seconds} s`).join(', then ')}`;
    // A static program loads no libraries: it was killed, but its clock was not moved.
    if (!isLoaded)
      return { ...miss(`${detail}: libfaketime was not loaded`, killed), scope: scopeOf(killed, context) };
    return hit(detail, scopeOf(killed, context), killed);
  },
  async heal(context: FaultContext): Promise<void> {
    setClock(context, 0);
  },
};

/**
 * Removes the shared memory files that libfaketime leaves behind when the process that created them is
 * killed. No other process uses them then.
 * @param pid of a process that has exited. Nothing happens for a process that never ran with libfaketime.
 */
export function removeFaketimeFiles(pid: number): void {
  for (const name of [`faketime_shm_${pid}`, `sem.faketime_sem_${pid}`])
    rmSync(join(SHARED_MEMORY_DIR, name), { force: true });
}

function drawJump(context: FaultContext): number {
  const seconds = logUniformInt(context.random, 1, MAX_JUMP_S);
  return context.random.int(2) === 0 ? -seconds : seconds;
}

function clockFile(context: FaultContext): string {
  return join(context.scratchDir, 'faketime');
}

function setClock(context: FaultContext, offsetS: number): void {
  writeFileSync(clockFile(context), `${offsetS < 0 ? '' : '+'}${offsetS}s\n`);
}

function faketimeEnvironment(context: FaultContext, library: string): Record<string, string> {
  return {
    LD_PRELOAD: library,
    FAKETIME_TIMESTAMP_FILE: clockFile(context),
    FAKETIME_NO_CACHE: '1',
    DONT_FAKE_MONOTONIC: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  };
}

/** Returns the path of libfaketime on this machine; an image must have it at the same path. */
export function faketimeLibrary(): string | undefined {
  for (const folder of LIBRARY_FOLDERS) {
    for (const candidate of [folder, ...subfolders(folder)]) {
      const path = join(candidate, 'faketime', LIBRARY);
      if (existsSync(path)) return path;
    }
  }
  return undefined;
}

function subfolders(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((name) => name.endsWith('-linux-gnu') || name.endsWith('-linux-musl'))
    .map((name) => join(folder, name));
}

function hasLibrary(service: Service): boolean {
  return service.pids().some((pid) => {
    try {
      return readFileSync(`/proc/${pid}/maps`, 'latin1').includes(LIBRARY);
    } catch {
      return false;
    }
  });
}
