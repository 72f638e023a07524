import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { inProcessRuntime, inProcessTarget, type QueueDefect } from '../fixtures/in-process-runtime.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { newRunId, Registry } from '../host/registry.js';
import type { Schedule } from '../round/schedule.js';
import { type RepeatOptions, type Repetition, repeat } from './repeat.js';

const GENEROUS_MS = 60_000;

const SCHEDULE: Schedule = {
  seed: 1,
  injections: [{ fault: 'kill', afterConfirms: 10, maxWaitMs: GENEROUS_MS }],
  disk: 'any',
  producers: 2,
  depth: 2,
};

interface Repeated extends Repetition {
  lines: string[];
  /** Names of the directories of evidence that are left. */
  left: string[];
}

async function repeatWith(
  t: { teardown(remove: () => void): void },
  defect: QueueDefect,
  limits: Pick<RepeatOptions, 'endMs' | 'graceMs'>,
  signal = new AbortController().signal,
): Promise<Repeated> {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  process.env.PLUGPULL_STATE = place.state;
  const registry = new Registry(newRunId());
  const dir = join(place.dir, 'runs');
  mkdirSync(dir);
  const lines: string[] = [];
  try {
    const options: RepeatOptions = {
      target: inProcessTarget(place),
      runtime: inProcessRuntime(defect),
      gate: {
        kind: 'gate',
        runtime: 'process',
        power: 'blocklog',
        filesystem: DEFAULT_FILESYSTEM,
        schedule: SCHEDULE,
        round: 1,
      },
      registry,
      signal,
      progress: (line) => lines.push(line),
      requirements: ['PP-1'],
      dir,
      ...limits,
    };
    return { ...(await repeat(options, SCHEDULE, 2, 'all')), lines, left: readdirSync(dir) };
  } finally {
    registry.close();
  }
}

t.test('a run that lasts longer than the budget and the drain is stopped, and does not count', async (t) => {
  const { runs, outOfTime, first, lines, left } = await repeatWith(t, '', {
    endMs: performance.now(),
    graceMs: 0,
  });
  t.match({ runs, outOfTime, first }, { runs: 0, outOfTime: true, first: undefined });
  t.match(lines.at(-1), /^run 1 was stopped: the budget is used$/);
  t.same(left, [], 'its evidence is removed');
});

t.test('the first run of a used budget ends, and no other one starts', async (t) => {
  const { runs, outOfTime } = await repeatWith(t, '', { endMs: performance.now(), graceMs: GENEROUS_MS });
  t.match({ runs, outOfTime }, { runs: 1, outOfTime: false });
});

t.test('within the budget there are as many runs as were asked for', async (t) => {
  const { runs, passed, outOfTime } = await repeatWith(t, '', {
    endMs: performance.now() + 10 * GENEROUS_MS,
  });
  t.match({ runs, passed, outOfTime }, { runs: 2, passed: 2, outOfTime: false });
});

t.test('an interrupted run is not one that was out of time', async (t) => {
  const { runs, outOfTime } = await repeatWith(
    t,
    '',
    { endMs: performance.now() + GENEROUS_MS },
    AbortSignal.abort(),
  );
  t.match({ runs, outOfTime }, { runs: 0, outOfTime: false });
});
