import t from 'tap';
import type { ClusterState, HistoryEvent } from '../../conformance/history/events.js';
import { RoundCluster, type RoundClusterOptions } from './round-cluster.js';

/** Makes the cluster of a round of which only what a promotion touches is there. The command ends with `code`. */
function clusterWith(code: number) {
  const states: Pick<ClusterState, 'down' | 'cut' | 'promoted'>[] = [];
  const node = {
    name: 'b',
    services: [],
    expand: (command: readonly string[]) => [...command],
    deployment: {
      runCommand: async () => ({
        ...{ code, signal: null, timedOut: false },
        ...{ stdout: '', stderr: code === 0 ? '' : 'c knows more than b\n' },
      }),
    },
  };
  const cluster = new RoundCluster({
    target: { promote: ['promote'], guarantee: { cluster: { tolerates: 1 } } },
    launched: { nodes: [node] },
    nodes: [],
    recorder: {
      record: (event: HistoryEvent) => {
        if (event.kind === 'cluster-state') states.push(event);
      },
    },
    network: {},
    injection: () => 1,
    installTimeoutMs: 1000,
  } as unknown as RoundClusterOptions);
  return { cluster, states };
}

t.test('a node whose promote command succeeds is recorded as promoted', async (t) => {
  const { cluster, states } = clusterWith(0);
  await cluster.promote?.('b');
  t.same(
    states.map(({ promoted }) => promoted),
    [['b'], ['b']],
    'before the command, because the node may confirm before its end, and after it',
  );
});

t.test('a node whose promote command refuses is not promoted', async (t) => {
  const { cluster, states } = clusterWith(1);
  await t.rejects(
    async () => cluster.promote?.('b'),
    /promote on node b ended with code 1: c knows more than b/,
  );
  t.equal(states.at(-1)?.promoted, undefined, 'no checker may demand that it serves');
});

t.test('the begin of an injection is recorded as the state that the one before has left', async (t) => {
  const { cluster, states } = clusterWith(0);
  cluster.noteState({ down: ['b'], cut: [] });
  cluster.noteBegin();
  t.same(
    states.map(({ down }) => down),
    [['b'], ['b']],
  );
});
