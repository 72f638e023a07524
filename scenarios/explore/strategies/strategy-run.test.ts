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

/**
 * Makes a log with one message: entry 0 writes it, entry 1 flushes it, and then it is confirmed. Returns a
 * function that explores the states of the log by the strategy `target`.
 */
function makeExploration(t: { teardown(end: () => void): void }) {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-strategy-'));
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
  const strategyRun = new StrategyRun({
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
  /** Judges every state by the inspection that `inspect` returns for it. */
  const explore = (inspect: (state: CrashState, required: boolean) => Inspection) => {
    for (const { crash, onInspected } of strategyRun.jobs()) {
      const { prefix } = crash;
      onInspected(
        inspect(crash, atRisk.idsOf(atRisk.required({ prefix, entriesBegun: prefix + 1 })).length > 0),
      );
    }
    strategyRun.end();
    return { strategyRun, events };
  };
  return explore;
}

const bits = new Map([['m', 0]]);
const holding = (...ids: string[]) => toInspection(bits, 1, ids, []);

t.test('a message that an inspection did not wait for does not count as lost in an equal disk', async (t) => {
  // The disk holds the message before it is confirmed, and the target delivers it late: an inspection that
  // need not wait for it does not see it.
  const { strategyRun, events } = makeExploration(t)((_, required) => (required ? holding('m') : holding()));
  t.same(strategyRun.broken, []);
  t.same(strategyRun.timedOut, []);
  t.ok(
    events.some(({ prefix }) => prefix >= 2),
    'states that must hold the message were judged',
  );
});

t.test('a message that does not come while an inspection waits for it is lost', async (t) => {
  const { strategyRun } = makeExploration(t)(() => holding());
  t.ok(strategyRun.broken.length > 0);
  t.ok(strategyRun.broken.every(({ state, missing }) => state.prefix >= 2 && missing[0] === 'm'));
});

t.test('a target that does not recover has failed, also when no message was at risk', async (t) => {
  const isOnDisk = ({ prefix, kept, torn }: CrashState) =>
    prefix >= 2 || kept.includes(0) || (torn.get(0)?.length ?? 0) > 0;
  const { strategyRun } = makeExploration(t)((state) =>
    isOnDisk(state) ? holding('m') : notRecovered('not today'),
  );
  t.ok(strategyRun.broken.length > 0);
  for (const broken of strategyRun.broken) t.match(broken, { recoveryFailure: 'not today', missing: [] });
});

t.test('a disk that cannot be mounted is neither judged nor counted as inspected', async (t) => {
  const { strategyRun, events } = makeExploration(t)(() => ({ ...notRecovered('torn'), unmountable: true }));
  t.ok(strategyRun.unmountable.length > 0);
  t.equal(strategyRun.figures(1).distinct, 0);
  t.same(events, []);
});
