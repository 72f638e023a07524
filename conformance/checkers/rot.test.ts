import t from 'tap';
import type { HistoryEvent } from '../history/events.js';
import { checkRot } from './rot.js';

/** Makes a round in which one confirmed message is damaged, and the target then reports `keptAside` messages. */
function round(number: number, keptAside: number): HistoryEvent[] {
  const id = `${number}-0-0`;
  const fault = {
    fault: 'data-rot',
    injection: number,
    hit: true,
    scope: 'all-processes',
    services: [],
  } as const;
  return [
    { kind: 'installed', atMs: 0, round: number },
    { kind: 'submitted', atMs: 1, id, producer: 0, sizeBytes: 1, digest: 'd', recipients: 1, shape: 'tiny' },
    { kind: 'answered', atMs: 2, id, outcome: 'confirmed', detail: '250' },
    {
      kind: 'fault',
      atMs: 3,
      ...fault,
      services: [],
      detail: '',
      indexDamaged: false,
      rotted: [id],
      failingMs: 0,
    },
    { kind: 'inspected', atMs: 4, ok: true, problems: [], keptAside, live: 0 },
    { kind: 'drained', atMs: 5, waitedMs: 1, complete: true },
  ];
}

t.test(
  'messages kept aside are added up over installations, because each installation has its own',
  async (t) => {
    t.equal(checkRot([...round(1, 1), ...round(2, 1)]).verdict, 'pass');
    t.equal(checkRot([...round(1, 1), ...round(2, 0)]).verdict, 'fail');
  },
);

t.test('a message that one installation reports at every inspection counts once', async (t) => {
  const again: HistoryEvent = { kind: 'inspected', atMs: 6, ok: true, problems: [], keptAside: 1, live: 0 };
  t.equal(checkRot([...round(1, 0), again, again]).verdict, 'pass');
  t.equal(checkRot([...round(1, 1), again, ...round(2, 0)]).verdict, 'fail');
});
