import t from 'tap';
import type { HistoryEvent, Untimed } from '../../conformance/history/events.js';
import { Recoveries, type RecoveriesOptions } from './recoveries.js';

/**
 * Makes the recoveries of a cluster whose nodes report numbers of live messages, one after another; the last one stays. Only
 * what an inspection touches is there.
 */
function inspecting(reports: Record<string, number[]>) {
  const recorded: Untimed<HistoryEvent>[] = [];
  const nodes = Object.entries(reports).map(([name, live]) => ({
    name,
    verify: ['verify'],
    deployment: {
      runCommand: async () => {
        const count = live.length > 1 ? live.shift() : live[0];
        return { code: 0, stdout: JSON.stringify({ ok: true, problems: [], live: count }), stderr: '' };
      },
    },
  }));
  const recoveries = new Recoveries({
    nodes,
    recorder: { record: (event: Untimed<HistoryEvent>) => recorded.push(event) },
    signal: new AbortController().signal,
  } as unknown as RecoveriesOptions);
  const last = (node: string) =>
    recorded.findLast((event) => event.kind === 'inspected' && event.node === node);
  return { recoveries, recorded, last };
}

t.test('a node that learns of the last consumptions later than the others is asked again', async (t) => {
  const { recoveries, last } = inspecting({ a: [0], b: [3, 1, 0] });
  await recoveries.inspectAtEnd();
  t.match(last('a'), { live: 0 });
  t.match(last('b'), { live: 0 }, 'the last report is that of a node that has caught up');
});

t.test('nodes that stay different are reported', async (t) => {
  const { recoveries, last } = inspecting({ a: [0], b: [3] });
  await recoveries.inspectAtEnd(600);
  t.match(last('a'), { live: 0 });
  t.match(last('b'), { live: 3 });
});

t.test('nodes that are equal are asked once', async (t) => {
  const { recoveries, recorded } = inspecting({ a: [2], b: [2] });
  await recoveries.inspectAtEnd();
  t.equal(recorded.length, 2);
});
