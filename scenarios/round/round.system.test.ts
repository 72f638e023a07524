import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { loadTarget } from '../../conformance/target-file/load.js';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { newRunId, Registry } from '../host/registry.js';
import { rerun } from '../replay/rerun.js';
import { processRuntime } from '../runtime/process/process-runtime.js';
import type { PlannedInjection, Schedule } from './schedule.js';

/** Delay of every delivery. It is longer than the time after which the kit counts a message as overdue. */
const LATE_MS = 8000;

t.test(
  'the drain does not begin while a slow target is down for the next power cut',
  { skip: blocklogAvailability().available ? false : 'power cuts are not available here' },
  async (t) => {
    const place = new TestWorkspace();
    t.teardown(() => place.remove());
    process.env.PLUGPULL_STATE = place.state;
    const target = loadTarget(place.queue('', ['power-cut'], 20, ['--late-ms', `${LATE_MS}`]));
    const cut = { fault: 'power-cut', afterConfirms: 5, maxWaitMs: 200 } satisfies PlannedInjection;
    const again = { ...cut, inRecovery: 0.1 };
    const injections = [
      ...Array<PlannedInjection>(8).fill(cut),
      ...Array<PlannedInjection>(25).fill(again),
      cut,
    ];
    const schedule: Schedule = { seed: 1, injections, disk: 'power', producers: 3, depth: 1 };
    const dir = join(place.dir, 'run');
    mkdirSync(dir);
    const registry = new Registry(newRunId());
    t.teardown(() => registry.close());
    const { events, evaluation } = await rerun(
      {
        target,
        runtime: await processRuntime.prepare(target, () => {}),
        gate: {
          kind: 'gate',
          runtime: 'process',
          power: 'blocklog',
          filesystem: DEFAULT_FILESYSTEM,
          schedule,
          round: 1,
        },
        registry,
        signal: new AbortController().signal,
        progress: () => {},
      },
      schedule,
      dir,
    );
    const of = (kind: string) => events.filter((event) => event.kind === kind).length;
    t.match(evaluation, { verdict: 'pass' }, evaluation.why);
    t.equal(of('delivered') > 0, true);
    const cuts = `${of('fault')} cuts, ${of('recovered')} of them recovered from`;
    // Messages are overdue only after six recoveries and five seconds. If six recoveries take longer, the
    // round ends then.
    const slow = of('fault') === of('recovered') && of('recovered') <= 8;
    t.ok(of('fault') > of('recovered') + 1, cuts, { skip: slow && `not measured, too slow: ${cuts}` });
  },
);
