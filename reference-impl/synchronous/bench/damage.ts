import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { printLine, waitForReader } from '../../common/cli/output.js';
import {
  type DamageOutcome,
  makeSoundQueue,
  openDamaged,
  refusedOutcome,
  TARGETS,
} from '../queue/fixtures/damage.js';
import { installQueue } from '../queue/install.js';
import { parseSettings } from '../settings/load.js';

/**
 * Damages `--count` copies of the files of a queue, and opens each with verify, rebuild and a worker. It ends with one
 * JSON object: how many messages came back, how many were lost and named, and the runs that violated a rule. A run is
 * repeated by its seed. `--jobs` processes work at a time. Each makes another queue for every `PER_QUEUE` runs: the
 * mappings of a queue stay until its process ends.
 */
const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '1000' },
    seed: { type: 'string', default: '1' },
    jobs: { type: 'string', default: '2' },
    target: { type: 'string', default: '' },
    from: { type: 'string' },
    to: { type: 'string' },
  },
});

const PER_QUEUE = 500;
/** A process that prints nothing for this time hangs, in ms. */
const HANG_MS = 120_000;

interface Line extends DamageOutcome {
  seed: number;
  target: string;
}

if (values.from !== undefined) await runPart(Number(values.from), Number(values.to));
else await runAll(Number(values.count), Number(values.seed));

/** Runs the seeds from `from` to `to` - 1 in this process, and prints a line of JSON for each. */
async function runPart(from: number, to: number): Promise<void> {
  const cleanUps: (() => unknown)[] = [];
  const context = { teardown: (clean: () => unknown) => void cleanUps.unshift(clean) };
  const directory = mkdtempSync(join(tmpdir(), 'plugpull-damage-'));
  try {
    const sound = await makeSoundQueue(context, Math.floor(from / PER_QUEUE));
    await installQueue(parseSettings({ ...sound.raw, directory }));
    for (let seed = from; seed < to; seed += 1) {
      const target = TARGETS.find((one) => one === values.target) ?? TARGETS[seed % TARGETS.length] ?? 'both';
      let outcome: DamageOutcome;
      try {
        outcome = await openDamaged(sound, directory, target, seed);
      } catch (error) {
        const why = error instanceof Error ? (error.stack ?? error.message) : String(error);
        outcome = refusedOutcome('', [`crash: ${why}`]);
      }
      await printLine({ seed, target, ...outcome });
    }
  } finally {
    for (const clean of cleanUps) await clean();
    rmSync(directory, { recursive: true, force: true });
  }
  // The mappings of the queues keep nothing alive, but timers of a queue that could not be closed would.
  await waitForReader();
  process.exit();
}

async function runAll(count: number, firstSeed: number): Promise<void> {
  const sums = new Map<
    string,
    { runs: number; refused: number; back: number; named: number; gone: number }
  >();
  const violations: Line[] = [];
  let next = firstSeed;
  const end = firstSeed + count;
  const note = (line: Line): void => {
    const sum = sums.get(line.target) ?? { runs: 0, refused: 0, back: 0, named: 0, gone: 0 };
    sums.set(line.target, sum);
    sum.runs += 1;
    if (line.end === 'refused') sum.refused += 1;
    sum.back += line.back;
    sum.named += line.named;
    sum.gone += line.gone;
    if (line.unnamed.length > 0 || line.problems.length > 0) violations.push(line);
  };
  const work = async (): Promise<void> => {
    while (next < end) {
      const from = next;
      next = Math.min(end, from + PER_QUEUE - (from % PER_QUEUE));
      await runInChild(from, next, note);
    }
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, work));
  process.stdout.write(
    `${JSON.stringify({ count, seed: firstSeed, ...Object.fromEntries(sums), violations }, null, 1)}\n`,
  );
  process.exitCode = violations.length > 0 ? 1 : 0;
}

/** Runs a part of the seeds in a child process. A child that dies or hangs is a violation of its next seed. */
async function runInChild(from: number, to: number, note: (line: Line) => void): Promise<void> {
  const args = ['--from', `${from}`, '--to', `${to}`, '--target', values.target];
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), ...args], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  let seed = from;
  const watch = setTimeout(() => child.kill('SIGKILL'), HANG_MS);
  const exited = new Promise<string>((resolve) => {
    child.once('exit', (code, signal) => resolve(`${code ?? signal}`));
  });
  for await (const line of createInterface({ input: child.stdout })) {
    watch.refresh();
    note(JSON.parse(line) as Line);
    seed += 1;
  }
  clearTimeout(watch);
  const end = await exited;
  if (seed < to) {
    const problems = [`the process ended with ${end} in this run, or before it`];
    note({ ...refusedOutcome('', problems), seed, target: 'process' });
  }
}
