import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import { compose } from '../../../conformance/protocols/message.js';
import type { Service } from '../../../faults/fault.js';
import { inProcessRuntime, inProcessTarget } from '../../fixtures/in-process-runtime.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { seeded } from '../../host/random.js';
import { newRunId, Registry } from '../../host/registry.js';
import type { PreparedRuntime } from '../../runtime/runtime.js';
import { type ConsumeOptions, consumeAll, consumeUntil, quietWhileMissingMs } from './run-on-target.js';

const RUN = 'the-run';
/** Messages on the crash state. The queue `withholds` keeps the last of them back until a nudge. */
const MESSAGES = Array.from({ length: 10 }, (_, n) =>
  compose({ run: RUN, id: `1-${n}`, shape: 'tiny' }, seeded(n)),
);
const IDS = MESSAGES.map(({ id }) => id);
const bitsOf = (count: number) => Buffer.from([0xff, 0xff >> (16 - count)]).toString('base64');

/**
 * A runtime whose queue holds MESSAGES when it is ready.
 * @param failingNudges number of runs of the command `nudge` that fail before one succeeds.
 */
function runtimeWithMessages(failingNudges: number): PreparedRuntime {
  const runtime = inProcessRuntime('withholds');
  let nudges = 0;
  return {
    ...runtime,
    deploy(plan) {
      const deployment = runtime.deploy(plan);
      const filled = (service: Service): Service => ({
        name: service.name,
        pids: () => service.pids(),
        signal: (signal) => service.signal(signal),
        waitForExit: (timeoutMs) => service.waitForExit(timeoutMs),
        async start() {
          await service.start();
          for (const { id, bytes } of MESSAGES) {
            const url = `http://127.0.0.1:${plan.ports[0]}/messages/${id}`;
            await fetch(url, { method: 'PUT', body: new Uint8Array(bytes) });
          }
        },
      });
      return {
        ...deployment,
        services: deployment.services.map(filled),
        async runCommand(name, command, timeoutMs) {
          if (name !== 'nudge' || ++nudges > failingNudges)
            return deployment.runCommand(name, command, timeoutMs);
          return { code: 1, signal: null, timedOut: false, stdout: '', stderr: 'not yet\n' };
        },
      };
    },
  };
}

interface State {
  options: ConsumeOptions;
  dataDir: string;
  dir: string;
  nudgeFailures: string[];
}

/** Makes the options for a crash state that holds MESSAGES. */
function makeState(
  t: { teardown(remove: () => void): void },
  redeliverySeconds: number,
  nudge?: { failing: number },
): State {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  process.env.PLUGPULL_STATE = place.state;
  const registry = new Registry(newRunId());
  t.teardown(() => registry.close());
  const events = MESSAGES.map(
    ({ id, digest, bytes }): HistoryEvent => ({
      ...{ kind: 'submitted', atMs: 0, id, producer: 0, sizeBytes: bytes.length },
      ...{ digest, recipients: 1, shape: 'tiny' },
    }),
  );
  const dataDir = join(place.dir, 'data');
  mkdirSync(dataDir);
  const nudgeFailures: string[] = [];
  const commands = nudge === undefined ? {} : { nudge: ['nudge'] };
  return {
    options: {
      target: inProcessTarget(place, { redeliverySeconds }, commands),
      runtime: runtimeWithMessages(nudge?.failing ?? 0),
      registry,
      run: RUN,
      scratch: join(place.dir, 'no-scratch'),
      ids: IDS,
      events,
      signal: new AbortController().signal,
      onNudgeFailed: (line) => void nudgeFailures.push(line),
    },
    dataDir,
    dir: join(place.dir, 'state'),
    nudgeFailures,
  };
}

t.test('the nudge brings what the target keeps back on a crash state, and is repeated', async (t) => {
  const { options, dataDir, dir, nudgeFailures } = makeState(t, 30, { failing: 1 });
  const inspection = await consumeAll(options, dataDir, IDS, dir);
  t.match(inspection, { recovered: true, heldBits: bitsOf(10), wrongCount: 0 });
  t.same(nudgeFailures, ['nudge: the command ended with code 1: not yet']);
});

t.test('a message that is still missing when the exploration ends is not called lost', async (t) => {
  const { options, dataDir, dir } = makeState(t, 600);
  const result = await consumeUntil(performance.now() + 1500, options, dataDir, IDS, dir);
  t.same(result, { hung: false });
});

t.test('a recovery that lasts until the end of the exploration leaves its state unjudged', async (t) => {
  const { options, dataDir, dir } = makeState(t, 600);
  t.same(await consumeUntil(performance.now(), options, dataDir, IDS, dir), { hung: false });
});

t.test('a state with all its messages is judged although the queue keeps others back', async (t) => {
  const { options, dataDir, dir } = makeState(t, 600);
  const inspection = await consumeUntil(performance.now() + 60_000, options, dataDir, IDS.slice(0, 9), dir);
  t.match(inspection, { recovered: true, heldBits: bitsOf(9) });
});

t.test('missing messages count as lost after the claimed silence, or after 15 s', async (t) => {
  const guarantee = (redeliverySeconds?: number) => ({
    ...{ faults: [], duplicatesPerCrash: 0, headers: 'unchanged' as const },
    ...(redeliverySeconds === undefined ? {} : { redeliverySeconds }),
  });
  t.equal(quietWhileMissingMs(guarantee()), 15_000);
  t.equal(quietWhileMissingMs(guarantee(600)), 600_000);
  t.equal(quietWhileMissingMs(guarantee(6)), 6000);
  t.equal(quietWhileMissingMs(guarantee(1)), 4000, 'the machine may be slow');
});
