import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Fault, Ground, Injection, Service } from '../fault.js';
import { hit, killServices, live, miss, scopeOf } from '../injection.js';
import { ALWAYS } from '../programs.js';
import { spread } from '../random-choice.js';
import { pauseFor, until } from '../waiting.js';

const LIBRARY_FOLDERS = ['/usr/lib', '/usr/local/lib', '/usr/lib64', '/lib'];
const LIBRARY = 'libfaketimeMT.so.1';
const SHARED = '/dev/shm';
const LOAD_TIMEOUT_MS = 2000;
const MOST_JUMPS = 3;
const LONGEST_JUMP_S = 90 * 24 * 3600;

/**
 * Services are started again with a wall clock that the kit sets: it starts wrong, and then jumps, forward and back.
 * The monotonic clock is left alone, as a real clock set by hand leaves it.
 */
export const clock: Fault = {
  name: 'clock',
  family: 'clock',
  summary: 'the wall clock jumps forward and back (libfaketime): order is not time',
  needs: { target: 'up', disk: 'any' },
  async available() {
    if (findLibrary() !== undefined) return ALWAYS;
    return {
      available: false,
      why: 'libfaketime is not installed',
      remedy: 'install the package libfaketime',
    };
  },
  async inject(ground: Ground): Promise<Injection> {
    const library = findLibrary();
    if (library === undefined) return miss('libfaketime is gone');
    const up = live(ground);
    const services = ground.random.int(2) === 0 ? up : up.slice(0, 1);
    const jumps = Array.from({ length: 1 + ground.random.int(MOST_JUMPS) }, () => jump(ground));
    const killed = await killServices(services);
    setClock(ground, jumps[0] ?? 0);
    for (const service of services) await service.start([], environment(ground, library));
    const loaded = await until(() => services.some(hasLibrary), LOAD_TIMEOUT_MS, ground.signal);
    for (const offsetS of jumps.slice(1)) {
      await ground.afterConfirms(1 + ground.random.int(20), 1000);
      setClock(ground, offsetS);
    }
    await pauseFor(100, ground.signal);
    const detail = `clock of ${killed.join(', ')} off by ${jumps.map((seconds) => `${seconds} s`).join(', then ')}`;
    // A static program does not load libraries: its clock was not moved, though it was killed.
    if (!loaded)
      return { ...miss(`${detail}: libfaketime was not loaded`, killed), scope: scopeOf(killed, ground) };
    return hit(detail, scopeOf(killed, ground), killed);
  },
  async heal(ground: Ground): Promise<void> {
    setClock(ground, 0);
  },
};

/**
 * Removes what libfaketime leaves behind when the process is killed that had it first: nobody else uses it then.
 * @param pid of a process that has gone; one that never had a clock of its own leaves nothing.
 */
export function forgetClockOf(pid: number): void {
  for (const name of [`faketime_shm_${pid}`, `sem.faketime_sem_${pid}`])
    rmSync(join(SHARED, name), { force: true });
}

function jump(ground: Ground): number {
  const seconds = spread(ground.random, 1, LONGEST_JUMP_S);
  return ground.random.int(2) === 0 ? -seconds : seconds;
}

function clockFile(ground: Ground): string {
  return join(ground.scratchDir, 'faketime');
}

function setClock(ground: Ground, offsetS: number): void {
  writeFileSync(clockFile(ground), `${offsetS < 0 ? '' : '+'}${offsetS}s\n`);
}

function environment(ground: Ground, library: string): Record<string, string> {
  return {
    LD_PRELOAD: library,
    FAKETIME_TIMESTAMP_FILE: clockFile(ground),
    FAKETIME_NO_CACHE: '1',
    DONT_FAKE_MONOTONIC: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  };
}

function findLibrary(): string | undefined {
  for (const folder of LIBRARY_FOLDERS) {
    for (const below of [folder, ...subfolders(folder)]) {
      const path = join(below, 'faketime', LIBRARY);
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
