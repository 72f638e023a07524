import { tmpdir } from 'node:os';
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import type { ExploreResult } from '../explore/result/result.js';
import { exitAfterOutput, ignoreFailedStreams, log, printJson } from '../host/console.js';
import { measureAbuse } from './abuse/abuse.js';
import { ATTACKS } from './abuse/attacks.js';
import { measureCheckpointed } from './checkpointed/checkpointed.js';
import { fuzzSmtp } from './fuzz/fuzz.js';
import { measurePower } from './power.js';
import { KIT_PROGRAM, referenceProgram } from './programs.js';
import { type FloorFigures, measureFloor, measureQueue, type QueueFigures, withQueue } from './queue.js';
import { measureSmtp } from './smtp.js';

/**
 * Measures the figures of `npm run bench`, and in the same run the raw floor of the same disk to compare
 * the queue with. `--json` prints one object. `--dir` selects the disk. `--seconds` is the duration of each
 * measurement. `--turns` is the number of repetitions of the queue's measurement. `--only` selects
 * measurements, with commas between their names.
 *
 * `smtp-abuse` as the first argument measures a gateway under abuse instead; `--kinds` selects some. `smtp-fuzz` sends
 * random sessions to a gateway and compares what arrives, byte by byte. `queue-damage` damages the files of `--count` queues
 * and opens them.
 */
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    kinds: { type: 'string', default: '' },
    sessions: { type: 'string', default: '1000' },
    count: { type: 'string', default: '1000' },
    seed: { type: 'string', default: '1' },
    program: { type: 'string', default: referenceProgram('synchronous/main.js') },
    json: { type: 'boolean', default: false },
    dir: { type: 'string', default: tmpdir() },
    seconds: { type: 'string', default: '4' },
    only: { type: 'string', default: '' },
    turns: { type: 'string', default: '3' },
  },
});

ignoreFailedStreams();
const [command] = positionals;
if (command === 'smtp-abuse') {
  const kinds = values.kinds === '' ? Object.keys(ATTACKS) : values.kinds.split(',');
  const unknown = kinds.find((kind) => !Object.hasOwn(ATTACKS, kind));
  if (unknown !== undefined)
    usage(`--kinds: found "${unknown}", expected some of ${Object.keys(ATTACKS).join(', ')}`);
  const { program, dir: directory, json } = values;
  await measureAbuse({
    ...{ program, directory, kinds, json },
    sessions: Number(values.sessions),
    seconds: Number(values.seconds),
  });
  await exitAfterOutput(0);
}
if (command === 'smtp-fuzz') {
  const { program, dir: directory } = values;
  const result = await fuzzSmtp({
    ...{ program, directory, killEvery: 1000, sessions: Number.POSITIVE_INFINITY },
    ...{ seed: Number(values.seed), seconds: Number(values.seconds) },
  });
  printJson(result);
  await exitAfterOutput(result.problems.length === 0 ? 0 : 1);
}
if (command === 'queue-damage') {
  const args = ['--count', values.count, '--seed', values.seed];
  const { exitCode } = await execa(
    process.execPath,
    [referenceProgram('synchronous/bench/damage.js'), ...args],
    { stdio: 'inherit', reject: false, env: { TMPDIR: values.dir } },
  );
  process.exit(exitCode);
}
if (command !== undefined)
  usage(`found "${command}", expected smtp-abuse, smtp-fuzz, queue-damage or no argument`);
const seconds = Number(values.seconds);
const isSelected = (name: string): boolean => values.only === '' || values.only.split(',').includes(name);
const figures: Record<string, number | object> = {};
const details: Record<string, object> = {};

if (isSelected('queue')) {
  // Measure the floor and the queue by turns, so that a disk that is busy for a while slows down both.
  const turns: QueueTurn[] = [];
  for (let turn = 0; turn < Number(values.turns); turn += 1) {
    turns.push({
      floor: await withQueue(values.dir, 512, measureFloor),
      one: await withQueue(values.dir, 512, (queue) => measureQueue(queue, 1, 1, seconds)),
      many: await withQueue(values.dir, 1536, (queue) => measureQueue(queue, 4, 16, seconds)),
    });
  }
  const medianOf = (figure: (turn: QueueTurn) => number) => median(turns.map(figure));
  figures['queue.floorSingle'] = medianOf(({ floor }) => floor.single);
  figures['queue.floorBatched'] = medianOf(({ floor }) => floor.batched);
  figures['queue.producers1'] = medianOf(({ one }) => one.msgsPerSecond);
  figures['queue.producers64'] = medianOf(({ many }) => many.msgsPerSecond);
  figures['queue.producers1Share'] = medianOf(({ one, floor }) => one.msgsPerSecond / floor.single);
  figures['queue.producers64Share'] = medianOf(({ many, floor }) => many.msgsPerSecond / floor.batched);
  details.turns = turns;
}

if (isSelected('checkpointed')) {
  const measured = await measureCheckpointed({ directory: values.dir, seconds, turns: Number(values.turns) });
  Object.assign(figures, measured.figures);
  details.checkpointed = measured.details;
}

if (isSelected('smtp')) {
  const smtp = await withQueue(values.dir, 256, (queue) => measureSmtp(queue, seconds));
  figures['smtp.sessions64'] = smtp.msgsPerSecond;
  details.sessions64 = smtp;
}
if (isSelected('restore')) {
  // A million records of 1 KiB need a data file of 1.25 GiB.
  const restore = await withQueue(values.dir, 1250, measureRestore);
  figures['restore.secondsFromNothing'] = restore.seconds;
  details.restore = restore;
}
if (isSelected('simulate')) {
  const simulation = await measureSimulation(seconds);
  figures['simulate.crashes'] = simulation.crashesPerSecond;
  details.simulation = simulation;
}
if (isSelected('power')) {
  const availability = blocklogAvailability();
  if (availability.available) {
    const power = await measurePower(seconds);
    figures['power.recorded'] = power.recorded.msgsPerSecond;
    figures['power.unrecorded'] = power.unrecorded.msgsPerSecond;
    figures['power.recordedShare'] = power.recorded.msgsPerSecond / power.unrecorded.msgsPerSecond;
    figures['power.cutCycle'] = power.cutCycle;
    details.power = power;
  } else log(`power: not measured: ${availability.why} (${availability.remedy})`);
}
if (isSelected('explore')) {
  const availability = blocklogAvailability();
  if (availability.available) {
    const explored = await measureExplore();
    for (const [name, strategy] of Object.entries(explored.strategies))
      figures[`explore.${name}Rate`] = strategy.statesPerSecond;
    details.explore = explored;
  } else log(`explore: not measured: ${availability.why} (${availability.remedy})`);
}
figures.details = details;

process.stdout.write(values.json ? `${JSON.stringify(figures)}\n` : formatTable(figures));

function usage(message: string): never {
  log(`bench: ${message}`);
  process.exit(2);
}

interface QueueTurn {
  floor: FloorFigures;
  one: QueueFigures;
  many: QueueFigures;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return ((sorted[(sorted.length - 1) >> 1] ?? 0) + (sorted[sorted.length >> 1] ?? 0)) / 2;
}

function rateUnit(name: string): string {
  if (name === 'simulate.crashes') return 'crashes/s';
  return name.endsWith('Rate') ? 'states/s' : 'msgs/s';
}

function formatTable(all: Record<string, number | object>): string {
  const rows = Object.entries(all).filter((row): row is [string, number] => typeof row[1] === 'number');
  const formatFigure = (name: string, value: number): string =>
    name.endsWith('Share')
      ? `${(value * 100).toFixed(0)} %`
      : name.endsWith('Ms')
        ? `${value.toFixed(2)} ms`
        : name.endsWith('Bytes')
          ? `${Math.round(value).toLocaleString('en')} bytes`
          : name.includes('econds') || name.endsWith('Cycle')
            ? `${value.toFixed(2)} s`
            : `${Math.round(value).toLocaleString('en')} ${rateUnit(name)}`;
  const lines = rows.map(([name, value]) => `${name.padEnd(28)} ${formatFigure(name, value)}`);
  return `${lines.join('\n')}\n${JSON.stringify(all.details)}\n`;
}

/**
 * Measures how many different disks all workers together explore per second. The time includes the
 * start-up.
 */
async function measureExplore(): Promise<Pick<ExploreResult, 'strategies' | 'states' | 'verdict'>> {
  const args = [KIT_PROGRAM, 'explore', '--budget', '24s', '--seed', '1', '--json'];
  const { stdout } = await execa(process.execPath, args, { stderr: 'ignore' });
  const { strategies, states, verdict } = JSON.parse(stdout) as ExploreResult;
  return { strategies, states, verdict };
}

/** Throughput of the simulation of the queue in memory, which is one process on one core. */
interface SimulationFigures {
  verdict: string;
  crashes: number;
  crashesPerSecond: number;
  /** Crashes per second of processor time, which does not depend on other processes of the machine. */
  crashesPerCpuSecond: number;
}

/** Measures the simulation with a fixed seed, so that each run does the same work. */
async function measureSimulation(seconds: number): Promise<SimulationFigures> {
  const { stdout } = await execa(
    process.execPath,
    [referenceProgram('synchronous/main.js'), 'simulate', '--json', '--seed', '1', '--budget', `${seconds}s`],
    { reject: false },
  );
  return JSON.parse(stdout) as SimulationFigures;
}

/** Duration of a restore from the data file alone. */
interface RestoreFigures {
  messages: number;
  seconds: number;
  /**
   * Duration of a restore when the data file is not in the page cache; null when this user may not drop the
   * cache.
   */
  coldSeconds: number | null;
}

interface RebuildReport {
  pairs: { restored: number; tookMs: number }[];
}

/** Fills the queue, then measures how long `rebuild` takes to make a new index from the data file. */
async function measureRestore(queue: string): Promise<RestoreFigures> {
  await measureQueue(queue, 4, 16, 600);
  const warm = await rebuild(queue);
  const coldSeconds = (await dropCaches()) ? (await rebuild(queue)).seconds : null;
  return { ...warm, coldSeconds };
}

async function rebuild(queue: string): Promise<{ messages: number; seconds: number }> {
  const { stdout } = await execa(process.execPath, [
    referenceProgram('synchronous/main.js'),
    ...['rebuild', '--from-nothing', '--queue', queue],
  ]);
  const [pair] = (JSON.parse(stdout) as RebuildReport).pairs;
  return { messages: pair?.restored ?? 0, seconds: (pair?.tookMs ?? 0) / 1000 };
}

async function dropCaches(): Promise<boolean> {
  const { failed } = await execa('sh', ['-c', 'sync; echo 1 > /proc/sys/vm/drop_caches'], { reject: false });
  return !failed;
}
