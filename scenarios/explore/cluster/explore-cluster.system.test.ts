import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { CHECKERS } from '../../../conformance/checkers/evaluate.js';
import { notInstalled } from '../../../conformance/fixtures/real-server.js';
import { readHistory } from '../../../conformance/history/reader.js';
import { loadTarget } from '../../../conformance/target-file/load.js';
import { blocklogAvailability } from '../../../faults/power/blocklog-availability.js';
import { until } from '../../../faults/waiting.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { packageRoot } from '../../host/version.js';
import { nodeNetworkAvailability } from '../../runtime/nodes/availability.js';
import type { ExploreResult } from '../result/result.js';
import { parseClusterState } from './address.js';
import { CLUSTER_MINIMUM } from './cluster-result.js';

const CONFORMANCE = join(packageRoot(), 'conformance');
const EXAMPLE = join(CONFORMANCE, 'examples/python/primary-backup.json');
const missing = [blocklogAvailability(), nodeNetworkAvailability()].find(({ available }) => !available);
const why = missing === undefined || missing.available ? false : missing.why;
const noPython = why || (notInstalled('python3') ?? false);
const noNats = why || (notInstalled('nats-server') ?? false);
/** The number of states must end an exploration that passes: a slow machine needs more time for them. */
const BUDGET = ['--budget', '15m'];

t.setTimeout(1_800_000);

function makeWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

async function explore(workspace: TestWorkspace, target: string, ...flags: string[]) {
  const ended = await workspace.run(['explore', target, '--json', '--seed', '3', ...flags]);
  const result = ended.stdout === '' ? undefined : (JSON.parse(ended.stdout) as ExploreResult);
  return { ...ended, result };
}

t.test(
  'the example of two nodes loses nothing, whichever machines lose their power',
  { skip: noPython },
  async (t) => {
    const workspace = makeWorkspace(t);
    const { code, result, stderr } = await explore(workspace, EXAMPLE, ...BUDGET, '--states', '16');
    t.equal(code, 0, stderr);
    t.match(result, { verdict: 'pass', lost: 0, broken: 0, evidence: null, distinct: 16 });
    t.ok((result?.atRisk ?? 0) >= CLUSTER_MINIMUM.statesAtRisk, `${result?.atRisk} with something at risk`);
    const { families = {}, nodes } = result?.cluster ?? {};
    t.same(nodes, ['a', 'b']);
    for (const family of ['all-lost', 'one-cut', 'away', 'random'] as const)
      t.ok((families[family] ?? 0) > 0, `${family}: ${families[family]}`);
    t.match(await workspace.run(['clean']), { code: 0, stdout: 'nothing was left\n' });
  },
);

t.test(
  'a backup that answers before it syncs loses messages, and the bundle shows it again',
  { skip: noPython },
  async (t) => {
    const workspace = makeWorkspace(t);
    const target = join(CONFORMANCE, 'fixtures/primary-backup/answers-before-sync.json');
    const { code, result, stderr } = await explore(workspace, target, ...BUDGET, '--states', '80');
    t.equal(code, 1, stderr);
    const address = result?.smallest?.state ?? '';
    t.equal(parseClusterState(address).away, 'a', 'the primary does not come back');
    const story = result?.smallest?.story.join('\n') ?? '';
    t.match(story, /node a does not come back/);
    t.match(story, /message \S+ on node b: .*too late/);
    const evidence = result?.evidence ?? '';
    const events = readHistory(join(evidence, 'history.jsonl'));
    const again = CHECKERS['PP-13'](events, loadTarget(target).guarantee);
    t.equal(again.why, result?.why, 'the history alone gives the same verdict');
    t.match(again.violations[0]?.what, /confirmed by instant \d+, and gone/);
    const bundle = result?.bundle ?? '';
    const replayed = await workspace.run(['replay', bundle, '--json']);
    t.equal(replayed.code, 1, replayed.stderr);
    t.match(JSON.parse(replayed.stdout), { verdict: 'fail', reproducer: address, judged: 'recovery' });
    for (const flags of [['--shell'], ['--at', '5'], ['--shrink']]) {
      const refused = await workspace.run(['replay', bundle, ...flags]);
      t.equal(refused.code, 2, refused.stderr);
      t.match(refused.stderr, new RegExp(`${flags[0]}.*cluster`));
    }
    const other = await workspace.run(['replay', bundle, '--target', workspace.queue('')]);
    t.equal(other.code, 2, other.stderr);
    t.match(other.stderr, /is of the nodes a, b, expected a target with these nodes \(it has none\)/);
    t.match(await workspace.run(['clean']), { code: 0, stdout: 'nothing was left\n' });
  },
);

/** Writes a target of two queues that know nothing of each other. A message is on one node only. */
function makeTwoQueues(workspace: TestWorkspace, bug: string): string {
  const program = join(workspace.dir, 'queue.mjs');
  const source = readFileSync(join(CONFORMANCE, 'fixtures/queue.mjs'), 'utf8');
  writeFileSync(program, source.replace("'127.0.0.1'", "'0.0.0.0'"));
  const wrong = bug === '' ? [] : ['--wrong', bug];
  return workspace.target(['{node}', program, '--data', '{data}', '--port', '{port}', ...wrong], {
    nodes: ['a', 'b'],
    guarantee: {
      ...{ faults: ['crash-states'], duplicatesPerCrash: 0, redeliverySeconds: 6, recoverySeconds: 20 },
      cluster: { tolerates: 0 },
    },
  });
}

t.test(
  'what an instant requires was on the disks, also of nodes that were only killed',
  { skip: why },
  async (t) => {
    const workspace = makeWorkspace(t);
    const { code, result, stderr } = await explore(
      workspace,
      makeTwoQueues(workspace, ''),
      ...BUDGET,
      '--states',
      '20',
    );
    t.equal(code, 0, `${stderr}${result?.why}`);
    t.match(result, { verdict: 'pass', lost: 0 });
    t.notOk(result?.cluster?.families.away, 'the target does not promise to serve without a machine');
    t.ok((result?.cluster?.families['one-cut'] ?? 0) > 0);
  },
);

t.test('nodes that never sync lose what they confirmed', { skip: why }, async (t) => {
  const workspace = makeWorkspace(t);
  const target = makeTwoQueues(workspace, 'never-syncs');
  const { code, result, stderr } = await explore(workspace, target, ...BUDGET);
  t.equal(code, 1, stderr);
  t.ok((result?.lost ?? 0) > 0);
});

t.test('a cluster that syncs only from time to time is red', { skip: noNats }, async (t) => {
  const workspace = makeWorkspace(t);
  const target = join(CONFORMANCE, 'targets/systems/nats-r3.json');
  const { code, result, stderr } = await explore(workspace, target, ...BUDGET);
  t.equal(code, 1, stderr);
  t.ok((result?.lost ?? 0) > 0);
});

t.test('a recording of a cluster cannot be used again, and the message says so', { skip: why }, async (t) => {
  const workspace = makeWorkspace(t);
  const { code, stderr } = await explore(workspace, EXAMPLE, '--recording', workspace.dir);
  t.equal(code, 2);
  t.match(stderr, /a target with several nodes is recorded anew each time/);
});

t.test(
  'an exploration that is interrupted or killed leaves nothing behind',
  { skip: noPython },
  async (t) => {
    for (const signal of ['SIGINT', 'SIGKILL'] as const) {
      const workspace = makeWorkspace(t);
      const kit = workspace.start(['explore', EXAMPLE, '--seed', '3', ...BUDGET]);
      await kit.waitForStderr(/^recorded/m);
      const [run = ''] = workspace.runs();
      const left = () =>
        (existsSync('/dev/shm') ? readdirSync('/dev/shm') : []).filter((name) => name.includes(run));
      const isMounted = () => readFileSync('/proc/self/mounts', 'latin1').includes(run);
      t.ok(await until(isMounted, 60_000), 'crash states are mounted');
      kit.child.kill(signal);
      const { code } = await kit.waitForExit();
      if (signal === 'SIGINT') t.equal(code, 130);
      t.equal((await workspace.run(['clean'])).code, 0);
      t.match(await workspace.run(['clean']), { code: 0, stdout: 'nothing was left\n' });
      t.same(left(), [], `${signal}: no image and no network stays`);
      t.notOk(isMounted(), `${signal}: no mount stays`);
    }
  },
);
