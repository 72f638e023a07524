import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { AtRiskMessages } from '../../../conformance/checkers/crash-states.js';
import { HistoryBuilder } from '../../../conformance/fixtures/history-builder.js';
import type { StateExplored } from '../../../conformance/history/events.js';
import { Fingerprints } from '../../../faults/crash-states/fingerprint.js';
import { openRecording } from '../../../faults/crash-states/materialise.js';
import { SECTOR_BYTES } from '../../../faults/sector.js';
import type { CrashState } from '../../../faults/write-log/state.js';
import { WriteLogWriter } from '../../../faults/write-log/writer.js';
import { seeded } from '../../host/random.js';
import { type Inspection, notRecovered, toInspection } from '../inspectors/inspection.js';
import { StrategyRun } from './strategy-run.js';

/** One message, on the disk with the first write, flushed with the second entry and confirmed then. */
function oneMessage(t: { teardown(end: () => void): void }) {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-way-'));
  const log = new WriteLogWriter(join(dir, 'log'));
  log.add({ offset: 0, data: Buffer.alloc(SECTOR_BYTES, 'm') });
  log.add({ flush: true });
  log.add({ offset: SECTOR_BYTES, data: Buffer.alloc(2 * SECTOR_BYTES, 'x') });
  log.close();
  const recording = openRecording(join(dir, 'log'));
  const base = join(dir, 'base');
  writeFileSync(base, Buffer.alloc(8 * SECTOR_BYTES));
  t.teardown(() => {
    recording.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const atRisk = new AtRiskMessages(new HistoryBuilder().start('crash-states').submitAt('m', 2).events);
  const events: Omit<StateExplored, 'atMs'>[] = [];
  const way = new StrategyRun({
    strategy: 'target',
    model: recording.model,
    from: 0,
    fingerprints: new Fingerprints(recording, base, 0),
    random: seeded(1),
    atRisk,
    recorder: {
      record: (event) => {
        if (event.kind === 'state-explored') events.push(event);
        return { ...event, atMs: 0 };
      },
    },
    maxDistinct: 40,
    endMs: performance.now() + 5000,
    signal: new AbortController().signal,
    progress() {},
  });
  /** Looks at every state, and says for each what is found. */
  const explore = (found: (state: CrashState, required: boolean) => Inspection) => {
    for (const { crash, onInspected } of way.jobs()) {
      const { prefix } = crash;
      onInspected(
        found(crash, atRisk.idsOf(atRisk.required({ prefix, entriesBegun: prefix + 1 })).length > 0),
      );
    }
    way.end();
    return { way, events };
  };
  return explore;
}

const bits = new Map([['m', 0]]);
const holding = (...ids: string[]) => toInspection(bits, 1, ids, []);

t.test('a message that a look did not have to wait for is not called lost in an equal disk', async (t) => {
  // It is on the disk from the first state on, and comes late: who does not wait for it does not see it.
  const { way, events } = oneMessage(t)((_, required) => (required ? holding('m') : holding()));
  t.same(way.broken, []);
  t.same(way.timedOut, []);
  t.ok(
    events.some(({ prefix }) => prefix >= 2),
    'states in which it must be there were judged',
  );
});

t.test('one that is not there when it is waited for is lost', async (t) => {
  const { way } = oneMessage(t)(() => holding());
  t.ok(way.broken.length > 0);
  t.ok(way.broken.every(({ state, missing }) => state.prefix >= 2 && missing[0] === 'm'));
});

t.test('a target that does not get up has failed, whatever was at stake', async (t) => {
  const isOnDisk = ({ prefix, kept, torn }: CrashState) =>
    prefix >= 2 || kept.includes(0) || (torn.get(0)?.length ?? 0) > 0;
  const { way } = oneMessage(t)((state) => (isOnDisk(state) ? holding('m') : notRecovered('not today')));
  t.ok(way.broken.length > 0);
  for (const broken of way.broken) t.match(broken, { recoveryFailure: 'not today', missing: [] });
});

t.test('what could not be mounted is neither judged nor counted as looked at', async (t) => {
  const { way, events } = oneMessage(t)(() => ({ ...notRecovered('torn'), unmountable: true }));
  t.ok(way.unmountable.length > 0);
  t.equal(way.figures(1).distinct, 0);
  t.same(events, []);
});
