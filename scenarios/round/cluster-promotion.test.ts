import t from 'tap';
import type { ClusterState } from '../../conformance/history/events.js';
import { FakeCluster } from '../../faults/fixtures/fake-cluster.js';
import { promoteOne } from '../../faults/link/cluster-steps.js';
import type { CommandResult } from '../runtime/runtime.js';
import { RoundCluster, type RoundClusterOptions } from './round-cluster.js';

const DONE: CommandResult = { code: 0, signal: null, timedOut: false, stdout: '', stderr: '' };

/** Makes the cluster of a round of two dead machines. Commands and disks only write to a log. */
function clusterOf(run: () => Partial<CommandResult>) {
  const log: string[] = [];
  const states: Partial<ClusterState>[] = [];
  const names = ['a', 'b'];
  const nodes = names.map((name) => ({
    name,
    services: [{ name: `server@${name}`, pids: () => [], start: async () => void log.push(`start ${name}`) }],
    expand: (command: readonly string[]) => [...command, name],
    deployment: {
      reboot: async () => void log.push(`reboot ${name}`),
      runCommand: async (_: string, command: readonly string[]) => {
        log.push(command.join(' '));
        return { ...DONE, ...run() };
      },
    },
  }));
  const fake = new FakeCluster({ names, tolerates: 1 });
  const cluster = new RoundCluster({
    target: {
      install: ['install'],
      promote: ['promote'],
      guarantee: { cluster: { tolerates: 1, electionSeconds: 1 } },
    },
    launched: {
      nodes,
      install: async (_: unknown, __: unknown, node: string) => void log.push(`install ${node}`),
    },
    nodes,
    disks: { replace: async (name: string) => void log.push(`replace ${name}`) },
    ledger: {},
    recorder: { record: (event: ClusterState) => void states.push(event) },
    network: fake.links,
    injection: () => 1,
    installTimeoutMs: 1000,
    signal: new AbortController().signal,
  } as unknown as RoundClusterOptions);
  return { cluster, log, states };
}

t.test('a promote command that fails promotes nobody, is repeated, and its reason is told', async (t) => {
  let calls = 0;
  const { cluster, log, states } = clusterOf(() =>
    ++calls < 3 ? { code: 1, stderr: 'promote: this node is stale' } : {},
  );
  await t.rejects(
    cluster.promote?.('b') ?? Promise.resolve(),
    /^promote on node b ended with code 1: promote: this node is stale$/,
  );
  t.notOk(states.at(-1)?.promoted, 'the last state has no promoted node');
  const { signal } = new AbortController();
  t.equal(await promoteOne(cluster, ['b'], 30_000, signal), 'b promoted');
  t.strictSame(log, ['promote b', 'promote b', 'promote b']);
  t.strictSame(states.at(-1)?.promoted, ['b']);
});

t.test('a promote command that takes too long promotes nobody', async (t) => {
  const { cluster, states } = clusterOf(() => ({ code: null, timedOut: true }));
  t.match(
    await promoteOne(cluster, ['b'], 0, new AbortController().signal),
    /could not be promoted.*took longer than/,
  );
  t.notOk(states.at(-1)?.promoted);
});

t.test(
  'a node whose disk was replaced boots again before its install, and a start boots nothing',
  async (t) => {
    const { cluster, log } = clusterOf(() => ({}));
    await cluster.replaceDisk('b', { install: true });
    await cluster.start('b');
    await cluster.start('a');
    t.strictSame(log, ['replace b', 'reboot b', 'install b', 'start b', 'start a']);
  },
);
