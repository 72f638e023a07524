import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import type { Drained, HistoryEvent, Untimed } from '../../conformance/history/events.js';
import { packageRoot } from '../host/version.js';
import { allowanceFor, type DrainOptions, drain, MAX_SILENCE_MS } from './drain.js';

/** Something that happens at a moment of the drain, in ms since its start. */
interface Step {
  atMs: number;
  run(world: World): void;
}

/** A target and its history, with a clock that only the drain moves. */
interface World {
  view: { lastActivityMs: number; maxWaitMs: number; outstanding: number; awaited: number };
  record(event: Untimed<HistoryEvent>): void;
  /** Lets time pass in which the drain does not run. */
  block(ms: number): void;
}

/** Runs a drain with a clock of its own, and returns the event that it records, and the lines of its progress. */
async function drained(
  outstanding: { outstanding: number; awaited?: number; maxWaitMs?: number },
  steps: readonly Step[],
  options: Partial<DrainOptions> = {},
): Promise<{ event: Untimed<Drained>; progress: string[]; nudges: number[] }> {
  let nowMs = 0;
  const due = [...steps];
  const events: HistoryEvent[] = [];
  const progress: string[] = [];
  const nudges: number[] = [];
  const view = { lastActivityMs: 0, maxWaitMs: 0, awaited: outstanding.outstanding, ...outstanding };
  const record = (event: Untimed<HistoryEvent>) => {
    // The cast is safe: an event with its time added is a HistoryEvent.
    const timed = { ...event, atMs: nowMs } as HistoryEvent;
    events.push(timed);
    return timed;
  };
  const withNudge = 'nudge' in options ? { nudge: async () => void nudges.push(nowMs) } : {};
  await drain({
    view,
    recorder: { events, record: record as DrainOptions['recorder']['record'] },
    redeliverySeconds: undefined,
    nudge: undefined,
    signal: new AbortController().signal,
    progress: (line) => void progress.push(line),
    ...options,
    ...withNudge,
    clock: {
      nowMs: () => nowMs,
      sleep: async (ms) => {
        nowMs += ms;
        const block = (blockedMs: number) => {
          nowMs += blockedMs;
        };
        while ((due[0]?.atMs ?? Number.POSITIVE_INFINITY) <= nowMs) due.shift()?.run({ view, record, block });
      },
    },
  });
  const event = events.at(-1);
  if (event?.kind !== 'drained') throw new Error('expected that the drain ends with an event');
  return { event, progress, nudges };
}

const refusal = (id: string): Untimed<HistoryEvent> => {
  return { kind: 'refused', sequence: 1, id, permanent: false, detail: '' };
};
const delivery = (id: string): Untimed<HistoryEvent> => {
  return { kind: 'delivered', sequence: 2, id, sizeBytes: 1, digest: '', recipients: [0] };
};

/** The last outstanding message is delivered and consumed. */
const delivers =
  (id = '1') =>
  ({ view, record }: World) => {
    record(delivery(id));
    view.outstanding = 0;
    view.awaited = 0;
  };

t.test('the drain waits for a message whose lease of 30 s has never been seen to end', async (t) => {
  const { event, progress } = await drained({ outstanding: 1 }, [{ atMs: 29_000, run: delivers() }]);
  t.match(event, { complete: true, allowedBy: 'default' });
  t.ok(event.waitedMs >= 29_000, 'it waited until the message came');
  t.match(progress, [/^drain: 1 confirmed messages are outstanding; waiting 65 s .*redeliverySeconds/]);
});

t.test('the drain is short for a target that has shown a redelivery, and says so', async (t) => {
  const { event } = await drained({ outstanding: 1 }, [
    { atMs: 50, run: ({ record }) => record(delivery('2')) },
    { atMs: 100, run: ({ record }) => record(refusal('2')) },
    { atMs: 300, run: ({ record }) => record(delivery('2')) },
  ]);
  t.match(event, { complete: true, allowedMs: 6000, allowedBy: 'shown' });
  t.ok(event.waitedMs < 7000, `${event.waitedMs} ms`);
});

t.test('a redelivery after a crash shows nothing about the length of a lease', async (t) => {
  const { event } = await drained({ outstanding: 1 }, [
    { atMs: 50, run: ({ record }) => record(delivery('2')) },
    { atMs: 100, run: ({ record }) => record(refusal('2')) },
    {
      atMs: 200,
      run: ({ record }) =>
        record({
          kind: 'service-exited',
          service: 'a',
          incarnation: 1,
          code: null,
          signal: 'SIGKILL',
          expected: true,
        }),
    },
    { atMs: 300, run: ({ record }) => record(delivery('2')) },
  ]);
  t.match(event, { allowedMs: MAX_SILENCE_MS, allowedBy: 'default' });
});

t.test('a lease that a crash has ended shows nothing, although the receiver learns it later', async (t) => {
  const exit = { kind: 'service-exited', service: 'a', incarnation: 1, code: null } as const;
  const { event } = await drained({ outstanding: 1 }, [
    { atMs: 50, run: ({ record }) => record(delivery('2')) },
    { atMs: 100, run: ({ record }) => record({ ...exit, signal: 'SIGKILL', expected: true }) },
    { atMs: 200, run: ({ record }) => record(refusal('2')) },
    { atMs: 300, run: ({ record }) => record(delivery('2')) },
  ]);
  t.match(event, { allowedMs: MAX_SILENCE_MS, allowedBy: 'default' });
});

t.test('a claimed time is waited in full, and no longer', async (t) => {
  const { event } = await drained({ outstanding: 1 }, [], { redeliverySeconds: 300 });
  t.match(event, { complete: true, waitedMs: 300_000, allowedMs: 300_000, allowedBy: 'claim' });
  const short = await drained({ outstanding: 1 }, [], { redeliverySeconds: 2 });
  t.match(short.event, { complete: true, waitedMs: 2000, allowedMs: 2000, allowedBy: 'claim' });
});

t.test('time in which the kit did not run is no silence of the target', async (t) => {
  const blocked = { atMs: 1000, run: ({ block }: World) => block(20_000) };
  const { event } = await drained({ outstanding: 1 }, [blocked, { atMs: 22_000, run: delivers() }], {
    redeliverySeconds: 15,
  });
  t.ok(event.waitedMs >= 22_000, `the message that came after the block was seen: ${event.waitedMs} ms`);
  const missing = await drained({ outstanding: 1 }, [blocked], { redeliverySeconds: 15 });
  t.match(missing.event, { complete: true, waitedMs: 35_000 }, 'the claimed time is waited, and no longer');
});

t.test('messages that may be consumed are not awaited as long as others', async (t) => {
  const { event } = await drained({ outstanding: 3, awaited: 0 }, [], { redeliverySeconds: 600 });
  t.match(event, { complete: true, waitedMs: 6000 });
});

t.test('nothing is outstanding: only a short silence is awaited', async (t) => {
  const { event, nudges } = await drained({ outstanding: 0 }, [], {
    redeliverySeconds: 600,
    nudge: async () => {},
  });
  t.match(event, { complete: true, waitedMs: 400 });
  t.same(nudges, [], 'a target that holds nothing is not nudged');
});

t.test('a target that delivers without end ends the drain at its limit, incomplete', async (t) => {
  const busy = Array.from({ length: 4000 }, (_, n) => ({
    atMs: n * 100,
    run: ({ view }: World) => {
      view.lastActivityMs = n * 100;
    },
  }));
  const { event } = await drained({ outstanding: 1 }, busy);
  t.match(event, { complete: false });
  t.equal(event.waitedMs, 105_000);
});

t.test('the nudge command runs at the beginning and then again and again', async (t) => {
  const { nudges } = await drained({ outstanding: 1 }, [{ atMs: 10_000, run: delivers() }], {
    nudge: async () => {},
  });
  t.equal(nudges[0], 0);
  t.ok(nudges.length >= 3 && nudges.length <= 4, `${nudges}`);
});

t.test(
  'the silence that is allowed follows from the claim, or else from what the target has shown',
  async (t) => {
    t.same(allowanceFor(30, 100, 0), { ms: 30_000, by: 'claim' });
    t.same(
      allowanceFor(2, undefined, 5500),
      { ms: 8250, by: 'claim' },
      'a slow target gets more than it claims',
    );
    t.same(allowanceFor(undefined, 100, 5500), { ms: 8250, by: 'shown' });
    t.same(allowanceFor(undefined, 20_000, 0), { ms: 30_000, by: 'shown' });
    t.same(
      allowanceFor(undefined, 50_000, 0),
      { ms: MAX_SILENCE_MS, by: 'default' },
      'the bound may be too short',
    );
    t.same(allowanceFor(undefined, 100, 60_000), { ms: 15_000, by: 'shown' }, 'a fault made the target wait');
  },
);

t.test('a process that can open no more files notices it', async (t) => {
  const module = join(packageRoot(), 'dist/scenarios/round/drain.js');
  const source = `
    import { closeSync, openSync } from 'node:fs';
    import { watchOpenFiles } from ${JSON.stringify(module)};
    const open = [];
    watchOpenFiles((error) => {
      closeSync(open.pop());
      console.log(error.code);
      process.exit(7);
    });
    setTimeout(() => {
      try { for (;;) open.push(openSync('/dev/null', 'r')); } catch {}
    }, 200);
    setTimeout(() => process.exit(3), 60_000);`;
  const script = `ulimit -n 200; exec "$0" --input-type=module -e "$1"`;
  const ended = spawnSync('bash', ['-c', script, process.execPath, source], { encoding: 'utf8' });
  t.match(ended, { status: 7, stdout: 'EMFILE\n' }, ended.stderr);
});

t.test('the drain says how many messages are missing, and how long it waits for them at most', async (t) => {
  const states: (string | undefined)[] = [];
  await drained(
    { outstanding: 3, awaited: 2 },
    [
      {
        atMs: 4000,
        run: ({ view }) => {
          view.awaited = 1;
          view.lastActivityMs = 4000;
        },
      },
    ],
    { redeliverySeconds: 20, waiting: (state) => void states.push(state) },
  );
  t.equal(states[0], 'drain: 2 confirmed messages are missing, at most 20 s left unless one of them comes');
  const later = [...new Set(states)];
  t.ok(later.includes('drain: 2 confirmed messages are missing, at most 17 s left unless one of them comes'));
  t.ok(later.includes('drain: 1 confirmed messages are missing, at most 20 s left unless one of them comes'));
  t.ok(later.includes('drain: 1 confirmed messages are missing, at most 1 s left unless one of them comes'));
  t.equal(states.at(-1), undefined, 'then it no longer waits');
});
