import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { execa } from 'execa';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { readHistory } from '../../conformance/history/reader.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { BlocklogDisk } from '../../faults/power/blocklog.js';
import { recordingDirectory } from '../../faults/power/blocklog-availability.js';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { newRunId, Registry } from '../host/registry.js';
import { RUN_VARIABLE } from '../runtime/runtime.js';
import { KIT_PROGRAM } from './programs.js';
import { measureQueue, type QueueFigures, withQueue } from './queue.js';

const DISK_BYTES = 2 * 2 ** 30;
const QUEUE_MIB = 512;
const PROCESSES = 4;
const PRODUCERS = 16;
/** Upper bound of one measurement. A longer one would fill the queue, because nothing is delivered. */
const MAX_SECONDS = 2;
const REPETITIONS = 3;
const GATE_BUDGET = '40s';

/** The cost of a recorded disk: its throughput, and the time from one power cut to the next. */
export interface PowerFigures {
  recorded: QueueFigures;
  unrecorded: QueueFigures;
  /** Median of `cutCycles`, in seconds. */
  cutCycle: number;
  /** Seconds from each power cut of the default target to the next. */
  cutCycles: number[];
}

/** Measures the queue on a recorded and on an unrecorded disk, and the cycle of power cuts in a gate. */
export async function measurePower(seconds: number): Promise<PowerFigures> {
  const durationSeconds = Math.min(seconds, MAX_SECONDS);
  const { recorded, unrecorded } = await compareDisks(durationSeconds);
  const cutCycles = await measureCutCycles();
  const sorted = [...cutCycles].sort((a, b) => a - b);
  return { recorded, unrecorded, cutCycle: sorted[Math.floor(sorted.length / 2)] ?? Number.NaN, cutCycles };
}

/**
 * Returns the best of several measurements of each disk. The measurements of the two disks alternate, so that
 * other load on the machine slows down both.
 */
async function compareDisks(seconds: number): Promise<Pick<PowerFigures, 'recorded' | 'unrecorded'>> {
  const figures: Record<'recorded' | 'unrecorded', QueueFigures[]> = { recorded: [], unrecorded: [] };
  for (let turn = 0; turn < REPETITIONS; turn++) {
    figures.unrecorded.push(await measureOnDisk(false, seconds));
    figures.recorded.push(await measureOnDisk(true, seconds));
  }
  const best = (all: QueueFigures[]) =>
    all.reduce((one, other) => (other.msgsPerSecond > one.msgsPerSecond ? other : one));
  return { recorded: best(figures.recorded), unrecorded: best(figures.unrecorded) };
}

/**
 * Measures the queue alone. The stack of image, daemon, loop device and ext4 is the same with and without
 * the log.
 */
async function measureOnDisk(recorded: boolean, seconds: number): Promise<QueueFigures> {
  const registry = new Registry(newRunId());
  const mountPoint = join(tmpdir(), `plugpull-${registry.runId}-mount`);
  mkdirSync(mountPoint);
  const disk = await BlocklogDisk.create({
    dir: join(recordingDirectory() ?? tmpdir(), `plugpull-${registry.runId}`),
    mountPoint,
    sizeBytes: DISK_BYTES,
    filesystem: DEFAULT_FILESYSTEM,
    recorded,
    env: { [RUN_VARIABLE]: registry.runId },
    registry,
  });
  try {
    return await withQueue(mountPoint, QUEUE_MIB, (queue) =>
      measureQueue(queue, PROCESSES, PRODUCERS, seconds),
    );
  } finally {
    disk.remove();
    removeTree(mountPoint);
    registry.close();
  }
}

/**
 * Runs a gate that only cuts the power, and returns the times between the cuts from its history, in
 * seconds.
 */
async function measureCutCycles(): Promise<number[]> {
  const out = mkdtempSync(join(tmpdir(), 'plugpull-bench-'));
  try {
    const flags = ['--faults', 'power-cut', '--budget', GATE_BUDGET, '--seed', '1', '--out', out];
    await execa(process.execPath, [KIT_PROGRAM, 'gate', ...flags]);
    return secondsBetweenCuts(readHistory(join(out, 'history.jsonl')));
  } finally {
    removeTree(out);
  }
}

function secondsBetweenCuts(history: readonly HistoryEvent[]): number[] {
  const cuts = history.filter((event) => event.kind === 'fault').map(({ atMs }) => atMs);
  return cuts.slice(1).map((atMs, index) => (atMs - (cuts[index] ?? 0)) / 1000);
}
