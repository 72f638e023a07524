import { mkdirSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { inProcessRuntime, inProcessTarget, type QueueDefect } from '../fixtures/in-process-runtime.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { newRunId, Registry } from '../host/registry.js';
import type { Schedule } from '../round/schedule.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
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

/** Calls a function before the data of a failed run is saved. The run has then ended, and its verdict is known. */
function savingAfter(runtime: PreparedRuntime, beforeSave: () => void): PreparedRuntime {
  const { makeDisk } = runtime;
  if (makeDisk === undefined) throw new Error('expected a runtime with disks');
  return {
    ...runtime,
    async makeDisk(...args) {
      const disk = await makeDisk(...args);
      const saveTo = async (to: string) => {
        beforeSave();
        await disk.saveTo(to);
      };
      return { ...disk, saveTo };
    },
  };
}

async function repeatWith(
  t: { teardown(remove: () => void): void },
  defect: QueueDefect,
  limits: Pick<RepeatOptions, 'endMs' | 'graceMs'>,
  signal = new AbortController().signal,
  beforeSave: () => void = () => undefined,
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
      runtime: savingAfter(inProcessRuntime(defect), beforeSave),
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

t.test(
  'a violation that a run has proven counts, also when the budget ends while its data is saved',
  async (t) => {
    const DAY_MS = 24 * 3_600_000;
    // The test ends the budget at the very moment, so that it does not depend on the speed of the machine.
    const { setTimeout: realSetTimeout } = globalThis;
    t.teardown(() => {
      globalThis.setTimeout = realSetTimeout;
    });
    const deadlines: (() => void)[] = [];
    globalThis.setTimeout = Object.assign((call: () => void, ms = 0) => {
      if (ms >= DAY_MS) deadlines.push(call);
      return realSetTimeout(call, ms);
    }, realSetTimeout);
    let saved = 0;
    const limits = { endMs: performance.now(), graceMs: 2 * DAY_MS };
    const result = await repeatWith(t, 'confirms-early', limits, undefined, () => {
      saved += 1;
      for (const end of deadlines) end();
    });
    t.equal(saved, 1, 'the run has failed');
    t.equal(deadlines.length, 1, 'the budget has ended');
    t.match(result, { runs: 1, reproduced: 1, outOfTime: false, first: { evaluation: { verdict: 'fail' } } });
    t.equal(result.left.length, 1, 'its evidence stays');
  },
);

t.test(
  'a violation that a run has proven counts, also when the user interrupts the save of its data',
  async (t) => {
    const interrupt = new AbortController();
    const limits = { endMs: performance.now() + 10 * GENEROUS_MS };
    const result = await repeatWith(t, 'confirms-early', limits, interrupt.signal, () => interrupt.abort());
    t.match(result, { runs: 1, reproduced: 1, outOfTime: false });
  },
);
