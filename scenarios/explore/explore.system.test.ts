import { mkdirSync, readFileSync } from 'node:fs';
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
import { packageRoot } from '../host/version.js';
import { loadPlantedBugs } from '../planted/definition.js';
import { plant } from '../planted/plant.js';
import type { ExploreResult } from './result/result.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;
const xfs = findProgram('mkfs.xfs') === undefined ? 'mkfs.xfs is not installed' : false;

function makeWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

/** Explores crash states with a fixed seed; `target` undefined: of the reference queue. */
async function explore(workspace: TestWorkspace, target: string | undefined, ...flags: string[]) {
  const file = target === undefined ? [] : [target];
  const ended = await workspace.run(['explore', ...file, '--json', '--seed', '3', ...flags]);
  const result = ended.stdout === '' ? undefined : (JSON.parse(ended.stdout) as ExploreResult);
  return { ...ended, result };
}

t.test(
  'an exploration finds a planted bug, names the missing sync, and its evidence makes the crash state again',
  { skip },
  async (t) => {
    const workspace = makeWorkspace(t);
    const [bug] = loadPlantedBugs(['confirm-before-msync']);
    if (bug === undefined) throw new Error('the planted bug is not there');
    const { target } = plant(bug, join(workspace.dir, 'planted'));
    const { code, result, stderr } = await explore(workspace, target, '--budget', '16s', '--states', '40');
    t.equal(code, 1, stderr);
    t.match(result, { verdict: 'fail', requirements: [{ id: 'PP-13', verdict: 'fail' }] });
    t.ok((result?.lost ?? 0) > 0, `${result?.lost} lost`);
    t.ok((result?.smallest?.story.length ?? 0) > 1, 'the story names the missing sync');
    const evidence = result?.evidence ?? '';
    const events = readHistory(join(evidence, 'history.jsonl'));
    const again = CHECKERS['PP-13'](events, loadTarget(target).guarantee);
    t.equal(again.why, result?.why, 'the history alone gives the same verdict');
    const recording = openRecording(join(evidence, 'writes.log'));
    t.teardown(() => recording.close());
    const image = join(evidence, 'disk.img');
    materialise(recording, parseState(result?.smallest?.state ?? ''), image);
    t.ok(readFileSync(image).length > 0);
  },
);

t.test('a saved recording and the same seed give the same crash states', { skip }, async (t) => {
  const workspace = makeWorkspace(t);
  const [first, second] = [join(workspace.dir, 'first'), join(workspace.dir, 'second')];
  // The number of states must end the exploration: with less time, a slow machine would test fewer states,
  // and the two lists would differ.
  const flags = ['--budget', '90s', '--states', '60'];
  const recorded = await explore(workspace, undefined, ...flags, '--out', first);
  t.equal(recorded.code, 0, recorded.stderr);
  const again = await explore(workspace, undefined, ...flags, '--recording', first, '--out', second);
  t.equal(again.code, 0, again.stderr);
  t.match(again.stderr, /^the recording has \d+ requests to the disk/);
  t.match(again.result, {
    verdict: 'pass',
    confirmed: recorded.result?.confirmed,
    log: recorded.result?.log,
  });
  // Leave out the states of recoveries: each exploration records the recoveries anew, so their logs differ.
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

t.test('a target without a restore program is started on each crash state', { skip }, async (t) => {
  const workspace = makeWorkspace(t);
  // The number of states must end the exploration: a slow machine needs more time for them.
  const flags = ['--budget', '90s', '--states', '20'];
  const { code, result, stderr } = await explore(workspace, workspace.queue(''), ...flags);
  t.equal(code, 0, stderr);
  t.match(result, { verdict: 'pass', lost: 0, broken: 0, evidence: null });
  t.equal(result?.strategies.target?.distinct, 20, 'states were inspected');
  t.ok((result?.atRisk ?? 0) > 0, 'confirmed messages were at risk');
  const { cuts = 0, allCuts = 0, share } = result?.explored ?? {};
  t.ok(cuts > 0 && cuts <= 20 && allCuts > cuts, `${cuts} of ${allCuts} cuts`);
  t.equal(share, cuts / allCuts);
});

t.test(
  'a pass that rests on a handful of crash states is not measured, with its reason',
  { skip },
  async (t) => {
    const workspace = makeWorkspace(t);
    const flags = ['--budget', '30s', '--states', '3'];
    const { code, result, stderr } = await explore(workspace, workspace.queue(''), ...flags);
    t.equal(code, 3, stderr);
    t.match(result, { verdict: 'not-measured', broken: 0, strategies: { target: { distinct: 3 } } });
    t.match(
      result?.why,
      /^too few states for a pass: 3 crash states explored, expected at least \d+ \(use a larger --states\)$/,
    );
    t.match(stderr, /^ +explored +3 of \d+ positions of the cut under load/m);
  },
);

t.test('crash states of a target that keeps its messages elsewhere prove nothing', { skip }, async (t) => {
  const workspace = makeWorkspace(t);
  const elsewhere = join(workspace.dir, 'elsewhere');
  mkdirSync(elsewhere);
  const program = join(packageRoot(), 'conformance/fixtures/queue.mjs');
  const target = workspace.target(['{node}', program, '--data', elsewhere, '--port', '{port}']);
  const { code, result, stderr } = await explore(workspace, target, '--budget', '60s', '--states', '24');
  t.equal(code, 3, stderr);
  t.match(
    result?.why,
    /the target keeps its messages elsewhere; it writes \S*elsewhere\/\S+ outside \{data\}$/,
  );
});

t.test('a log file in {data} does not hide that the messages are stored elsewhere', { skip }, async (t) => {
  const workspace = makeWorkspace(t);
  const elsewhere = join(workspace.dir, 'elsewhere');
  mkdirSync(elsewhere);
  const program = join(packageRoot(), 'conformance/fixtures/queue.mjs');
  const log = '(while echo put >> "$1/queue.log"; do sleep 0.02; done) & shift; exec "$@"';
  const queue = ['{node}', program, '--data', elsewhere, '--port', '{port}'];
  const target = workspace.target(['sh', '-c', log, 'sh', '{data}', ...queue]);
  const { code, result, stderr } = await explore(workspace, target, '--budget', '60s', '--states', '24');
  t.equal(code, 3, stderr);
  t.match(
    result?.why,
    /those at risk are in no file of \{data\}; it writes \S*elsewhere\/\S+ outside \{data\}$/,
  );
  t.match(result?.warnings, [/ writes \S*elsewhere\/\S+ outside \{data\}: no crash state shows/]);
  t.match(stderr, /^warning: \S+ writes /m);
});

t.test('copies of one xfs can be mounted at the same time', { skip: skip || xfs }, async (t) => {
  const workspace = makeWorkspace(t);
  const flags = ['--fs', 'xfs', '--budget', '40s', '--states', '60'];
  const { code, result, stderr } = await explore(workspace, undefined, ...flags);
  t.equal(code, 0, stderr);
  t.match(result, { verdict: 'pass', unmountable: { states: 0 } });
  t.ok((result?.strategies.mount?.distinct ?? 0) > 10, `${result?.strategies.mount?.distinct} were mounted`);
});

t.test('a runtime that cannot explore crash states is rejected in one line', async (t) => {
  const workspace = makeWorkspace(t);
  const { code, stderr } = await explore(workspace, workspace.queue(''), '--runtime', 'docker');
  t.equal(code, 2);
  t.match(stderr, /^plugpull: --runtime docker: .*process only\n$/);
});
