import fc from 'fast-check';
import t from 'tap';
import { HistoryBuilder } from '../../../conformance/fixtures/history-builder.js';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import { type TraceEvent, traceOf } from './write-trace.js';

/** Returns what is wrong with a trace by the rules of the format; empty when nothing is. */
function problemsOf(events: readonly TraceEvent[]): string[] {
  const problems: string[] = [];
  const open = new Map<string, string[]>();
  let lastTs = 0;
  for (const event of events) {
    const { name, ph, ts, pid, tid } = event;
    const where = JSON.stringify(event);
    if (![ts, pid, tid].every((value) => Number.isInteger(value) && value >= 0))
      problems.push(`numbers: ${where}`);
    if (typeof name !== 'string') problems.push(`name: ${where}`);
    if (ph !== 'M' && ts < lastTs) problems.push(`order: ${where}`);
    if (ph !== 'M') lastTs = ts;
    if (ph === 'X' && !(Number.isInteger(event.dur) && (event.dur ?? -1) >= 0))
      problems.push(`dur: ${where}`);
    if (ph === 'i' && !['g', 'p'].includes(event.s ?? '')) problems.push(`scope: ${where}`);
    if (!['b', 'e', 'n'].includes(ph)) continue;
    if (event.id === undefined || event.cat === undefined) problems.push(`id: ${where}`);
    const key = `${event.cat} ${event.id}`;
    const stack = open.get(key) ?? [];
    open.set(key, stack);
    if (ph === 'b') stack.push(name);
    else if (ph === 'e' && stack.pop() !== name) problems.push(`unmatched end: ${where}`);
  }
  for (const [key, stack] of open) if (stack.length > 0) problems.push(`never ended: ${key}`);
  return problems;
}

const step = fc.constantFrom(
  'submit',
  'silent',
  'deliver',
  'consume',
  'refuse',
  'crash',
  'start',
  'exit',
  'answer',
);

/** Makes a history of any steps, in an order that no real target shows. */
function historyOf(steps: readonly string[]): HistoryEvent[] {
  const history = new HistoryBuilder().start('kill');
  steps.forEach((name, index) => {
    const id = `${index % 5}`;
    if (name === 'submit') history.submit(id);
    else if (name === 'silent') history.submit(id, 'none');
    else if (name === 'deliver') history.deliver(id);
    else if (name === 'consume') history.consume();
    else if (name === 'refuse') history.refuse(false);
    else if (name === 'crash') history.crash();
    else if (name === 'answer') history.append({ kind: 'answered', id, outcome: 'confirmed', detail: '' });
    else if (name === 'start')
      history.append({ kind: 'service-started', service: 's', incarnation: index % 3 });
    else
      history.append({
        kind: 'service-exited',
        service: 's',
        incarnation: index % 3,
        ...{ code: 1, signal: null, expected: false },
      });
  });
  return history.events;
}

t.test('every event of a trace keeps the rules of the format, in any order of a history', async (t) => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const events = traceOf(historyOf(steps), 1, 'mine');
      for (const { ph } of events) seen.add(ph);
      t.same(problemsOf(events), []);
    }),
  );
  t.same([...seen].sort(), ['C', 'M', 'X', 'b', 'e', 'i', 'n'], 'every kind of event occurred');
});

t.test('a message lasts from its submit to its consumption, and a fault is an instant', async (t) => {
  const { events } = new HistoryBuilder().start('kill').submit('1').deliver('1').consume().crash();
  const trace = traceOf(events, 3, 'mine');
  const ofMessage = trace.filter(({ id }) => id === '1');
  t.same(
    ofMessage.map(({ ph, name }) => `${ph} ${name}`),
    ['b message 1', 'b submit', 'e submit', 'n delivered', 'e message 1'],
  );
  t.match(
    trace.find(({ ph }) => ph === 'i'),
    { name: 'kill', s: 'g', pid: 3, args: { hit: true } },
  );
  t.ok(trace.some(({ ph, args }) => ph === 'M' && args?.name === 'producer 0'));
});
