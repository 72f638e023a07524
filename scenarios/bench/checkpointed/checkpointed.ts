import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { execa } from 'execa';
import { removeTree } from '../../../faults/files/remove-tree.js';
import { referenceProgram } from '../programs.js';
import { measurePeers, type PeerFigures } from './peers.js';

/** Messages per second of the raw disk: with one fdatasync per message, and with one per 64 messages. */
interface FloorFigures {
  single: number;
  batched: number;
}

interface LatencyFigures {
  count: number;
  p50Ms: number;
  p99Ms: number;
}

/** Figures of producers on the queue's own interface. `during`: commits that a checkpoint fell into. */
interface ProducerFigures {
  msgsPerSecond: number;
  outside: LatencyFigures;
  during: LatencyFigures;
  checkpoints: number;
  checkpointMs: number;
  lockedShare: number;
}

/** Figures of one turn. They are measured one after the other, so that a disk that is busy for a while slows down all of them. */
interface Turn {
  floor: FloorFigures;
  /** Producers without a consumer, and without a checkpoint. */
  oneAlone: ProducerFigures;
  manyAlone: ProducerFigures;
  /** Producers beside a consumer, with checkpoints. */
  one: ProducerFigures;
  many: ProducerFigures;
  http: { putsPerSecond: number; consumedPerSecond: number };
  peers: PeerFigures;
}

interface RestartFigures {
  messages: number;
  in: string;
  seconds: number;
  readSeconds: number;
}

interface MemoryFigures {
  messages: number;
  bytes: number;
  measured: { heap: number; external: number; rss: number };
  counted: number;
}

/** How long and how often to measure, and where. */
export interface CheckpointedOptions {
  /** Directory on the disk that is measured. */
  directory: string;
  /** Duration of each measurement. */
  seconds: number;
  turns: number;
}

const RESTARTED_MESSAGES = [10_000, 100_000, 400_000];
const MESSAGE_SIZES = [100, 1024];
/** Number of messages. It is large, so that the 30 MB that the process itself takes are a small part. */
const MEASURED_MESSAGES = '400000';

/**
 * Measures the queue with checkpoints: its own interface beside the raw disk, HTTP, other systems that are installed, the start
 * after a kill, and the memory per message.
 * @returns the medians of all turns by name, and all figures.
 */
export async function measureCheckpointed(
  options: CheckpointedOptions,
): Promise<{ figures: Record<string, number>; details: object }> {
  const turns: Turn[] = [];
  for (let turn = 0; turn < options.turns; turn += 1) turns.push(await measureTurn(options));
  const restarts: RestartFigures[] = [];
  for (const place of ['slots', 'log'])
    for (const messages of RESTARTED_MESSAGES)
      restarts.push(
        await measured(options, 'restart', ['--messages', `${messages}`, '--in', place], '--queue'),
      );
  const memory: MemoryFigures[] = [];
  for (const bytes of MESSAGE_SIZES)
    memory.push(
      await measured(options, 'memory', ['--bytes', `${bytes}`, '--messages', MEASURED_MESSAGES], '--queue'),
    );
  return { figures: figuresOf(turns, restarts, memory), details: { turns, restarts, memory } };
}

function figuresOf(
  turns: readonly Turn[],
  restarts: readonly RestartFigures[],
  memory: readonly MemoryFigures[],
): Record<string, number> {
  const figures: Record<string, number> = {};
  const add = (name: string, figure: (turn: Turn) => number | undefined) => {
    const found = turns.flatMap((turn) => figure(turn) ?? []).sort((a, b) => a - b);
    if (found.length === 0) return;
    const [low, high] = [found[(found.length - 1) >> 1] ?? 0, found[found.length >> 1] ?? 0];
    figures[`checkpointed.${name}`] = (low + high) / 2;
  };
  add('floorSingle', ({ floor }) => floor.single);
  add('floorBatched', ({ floor }) => floor.batched);
  add('producers1', ({ oneAlone }) => oneAlone.msgsPerSecond);
  add('producers64', ({ manyAlone }) => manyAlone.msgsPerSecond);
  add('producers1Share', ({ oneAlone, floor }) => oneAlone.msgsPerSecond / floor.single);
  add('producers64Share', ({ manyAlone, floor }) => manyAlone.msgsPerSecond / floor.batched);
  add('consumed1', ({ one }) => one.msgsPerSecond);
  add('consumed64', ({ many }) => many.msgsPerSecond);
  for (const count of ['one', 'many'] as const) {
    const suffix = count === 'one' ? '1' : '64';
    add(`p50Outside${suffix}Ms`, (turn) => turn[count].outside.p50Ms);
    add(`p99Outside${suffix}Ms`, (turn) => turn[count].outside.p99Ms);
    add(`p99During${suffix}Ms`, (turn) => turn[count].during.p99Ms);
    add(`p99During${suffix}Share`, (turn) => turn[count].during.p99Ms / turn[count].outside.p99Ms);
  }
  add('lockedShare', ({ many }) => many.lockedShare);
  add('httpPuts64', ({ http }) => http.putsPerSecond);
  add('httpConsumed64', ({ http }) => http.consumedPerSecond);
  add('redisSingle', ({ peers }) => peers.redis?.single);
  add('redis64', ({ peers }) => peers.redis?.many);
  add('postgresSingle', ({ peers }) => peers.postgres?.single);
  add('postgres64', ({ peers }) => peers.postgres?.many);
  for (const { messages, in: place, seconds } of restarts)
    figures[`checkpointed.restart.${place}${messages}Seconds`] = seconds;
  for (const { bytes, measured: found, counted } of memory) {
    figures[`checkpointed.memory${bytes}Bytes`] = found.rss;
    figures[`checkpointed.counted${bytes}Bytes`] = counted;
  }
  return figures;
}

async function measureTurn(options: CheckpointedOptions): Promise<Turn> {
  const seconds = ['--seconds', `${options.seconds}`];
  // Without a consumer the contents grow: a short run is enough.
  const alone = ['--alone', '--warmup', '0.5', '--seconds', `${options.seconds / 2}`];
  return {
    floor: await measured(options, 'floor', ['--seconds', `${options.seconds / 2}`], '--directory'),
    oneAlone: await measured(options, 'producer', ['--producers', '1', ...alone], '--queue'),
    manyAlone: await measured(options, 'producer', ['--producers', '64', ...alone], '--queue'),
    one: await measured(options, 'producer', ['--producers', '1', ...seconds], '--queue'),
    many: await measured(options, 'producer', ['--producers', '64', ...seconds], '--queue'),
    http: await inDirectory(options.directory, (queue) => measureHttp(queue, options.seconds)),
    peers: await measurePeers(options.directory, options.seconds),
  };
}

/** Runs a program of the queue's bench in a directory of its own. */
function measured<T>(
  { directory }: CheckpointedOptions,
  program: 'floor' | 'producer' | 'restart' | 'memory',
  flags: readonly string[],
  directoryFlag: string,
): Promise<T> {
  return inDirectory(directory, async (own) => {
    const path = referenceProgram(`checkpointed/bench/${program}.js`);
    const { stdout } = await execa(process.execPath, [path, directoryFlag, own, ...flags], {
      stderr: 'inherit',
    });
    return JSON.parse(stdout) as T;
  });
}

async function inDirectory<T>(parent: string, use: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(parent, 'plugpull-bench-'));
  try {
    return await use(directory);
  } finally {
    removeTree(directory);
  }
}

/** Measures a server of the queue over HTTP, with 64 connections. */
async function measureHttp(queue: string, seconds: number): Promise<Turn['http']> {
  const program = referenceProgram('checkpointed/main.js');
  await execa(process.execPath, [program, 'install', '--queue', queue]);
  const server = spawn(process.execPath, [program, 'serve', '--queue', queue], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(server, 'close');
  try {
    const port = await Promise.race([
      readyPort(server.stdout),
      ended.then(() => Promise.reject(new Error('the server ended before it was ready'))),
    ]);
    const client = referenceProgram('checkpointed/bench/http.js');
    const args = [client, '--port', `${port}`, '--seconds', `${seconds}`];
    const { stdout } = await execa(process.execPath, args, { stderr: 'inherit' });
    return JSON.parse(stdout) as Turn['http'];
  } finally {
    server.kill('SIGTERM');
    await ended;
  }
}

async function readyPort(output: NodeJS.ReadableStream): Promise<number> {
  const [line] = (await once(createInterface({ input: output }), 'line')) as [string];
  return (JSON.parse(line) as { port: number }).port;
}
