import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { CHECKERS } from '../../conformance/checkers/evaluate.js';
import { readHistory } from '../../conformance/history/reader.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { materialise, openRecording } from '../../faults/crash-states/materialise.js';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { findProgram } from '../../faults/programs.js';
import { parseState } from '../../faults/write-log/state.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { loadPlantedBugs } from '../planted/definition.js';
import { plant } from '../planted/plant.js';
import type { ExploreResult } from './result/result.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;
const xfs = findProgram('mkfs.xfs') === undefined ? 'mkfs.xfs is not installed' : false;

function newPlace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  return place;
}

async function explore(place: TestWorkspace, target: string | undefined, ...flags: string[]) {
  const file = target === undefined ? [] : [target];
  const ended = await place.run(['explore', ...file, '--json', '--seed', '3', ...flags]);
  const result = ended.stdout === '' ? undefined : (JSON.parse(ended.stdout) as ExploreResult);
  return { ...ended, result };
}

t.test(
  'a planted bug is found, named, and its state can be made again from the evidence',
  { skip },
  async (t) => {
    const place = newPlace(t);
    const [bug] = loadPlantedBugs(['confirm-before-msync']);
    if (bug === undefined) throw new Error('the planted bug is not there');
    const target = plant(bug, join(place.dir, 'planted'));
    const { code, result, stderr } = await explore(place, target, '--budget', '16s', '--states', '40');
    t.equal(code, 1, stderr);
    t.match(result, { verdict: 'fail', requirements: [{ id: 'PP-13', verdict: 'fail' }] });
    t.ok((result?.lost ?? 0) > 0, `${result?.lost} lost`);
    t.ok((result?.smallest?.story.length ?? 0) > 1, 'tells which sync was missing');
    const evidence = result?.evidence ?? '';
    const events = readHistory(join(evidence, 'history.jsonl'));
    const again = CHECKERS['PP-13'](events, loadTarget(target).guarantee);
    t.equal(again.why, result?.why, 'the history alone leads to the same verdict');
    const recording = openRecording(join(evidence, 'writes.log'));
    t.teardown(() => recording.close());
    const image = join(evidence, 'disk.img');
    materialise(recording, parseState(result?.smallest?.state ?? ''), image);
    t.ok(readFileSync(image).length > 0);
  },
);

t.test('a recording that was kept is explored again: the same seed, the same states', { skip }, async (t) => {
  const place = newPlace(t);
  const [first, second] = [join(place.dir, 'first'), join(place.dir, 'second')];
  // It is the states that end it: with less time a slow machine would see fewer of them.
  const flags = ['--budget', '90s', '--states', '60'];
  const recorded = await explore(place, undefined, ...flags, '--out', first);
  t.equal(recorded.code, 0, recorded.stderr);
  const again = await explore(place, undefined, ...flags, '--recording', first, '--out', second);
  t.equal(again.code, 0, again.stderr);
  t.match(again.stderr, /^the recording has \d+ requests to the disk/);
  t.match(again.result, {
    verdict: 'pass',
    confirmed: recorded.result?.confirmed,
    log: recorded.result?.log,
  });
  // Those of a recovery are cuts of its own recording, which is made anew.
  const states = (dir: string) =>
    readHistory(join(dir, 'history.jsonl'))
      .flatMap((event) =>
        event.kind === 'state-explored'
          ? [`${event.strategy} ${event.state} ${event.heldBits} ${event.equivalentStates}`]
          : [],
      )
      .filter((state) => !state.includes('>'))
      .sort();
  t.ok(states(first).length >= 30, `${states(first).length} states`);
  t.same(states(second), states(first));
});

t.test('the target is started on each state where it has no program that restores', { skip }, async (t) => {
  const place = newPlace(t);
  const { code, result, stderr } = await explore(place, place.queue(''), '--budget', '14s', '--states', '6');
  t.equal(code, 0, stderr);
  t.match(result, { verdict: 'pass', lost: 0, broken: 0, evidence: null });
  t.ok((result?.strategies.target?.distinct ?? 0) > 0, 'states were looked at');
  t.ok((result?.atRisk ?? 0) > 0, 'with something at risk');
});

t.test('copies of one xfs are mounted side by side', { skip: skip || xfs }, async (t) => {
  const place = newPlace(t);
  const flags = ['--fs', 'xfs', '--budget', '40s', '--states', '60'];
  const { code, result, stderr } = await explore(place, undefined, ...flags);
  t.equal(code, 0, stderr);
  t.match(result, { verdict: 'pass', unmountable: { states: 0 } });
  t.ok((result?.strategies.mount?.distinct ?? 0) > 10, `${result?.strategies.mount?.distinct} were mounted`);
});

t.test('where it cannot be explored that is said in one line', async (t) => {
  const place = newPlace(t);
  const { code, stderr } = await explore(place, place.queue(''), '--runtime', 'docker');
  t.equal(code, 2);
  t.match(stderr, /^plugpull: --runtime docker: .*process only\n$/);
});
