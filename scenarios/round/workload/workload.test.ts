import { join } from 'node:path';
import t from 'tap';
import { Recorder } from '../../../conformance/history/recorder.js';
import { localAddress } from '../../../conformance/protocols/address.js';
import { http } from '../../../conformance/protocols/http/http.js';
import type { Message } from '../../../conformance/protocols/message.js';
import { recordReceipts } from '../../../conformance/protocols/receipts.js';
import { smtp } from '../../../conformance/protocols/smtp/smtp.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { seeded } from '../../host/random.js';
import type { ChangedDelivery } from '../changed-messages.js';
import { Ledger } from './ledger.js';
import { chooseReception, planSubmission } from './messages.js';
import { Producers } from './producers.js';

const PLACE = { run: 'run', id: '1-2-3', envelope: true, floodBytes: 0 };
const never = new AbortController().signal;

function newLedger(t: { teardown(end: () => void): void }): { ledger: Ledger; recorder: Recorder } {
  const place = new TestWorkspace();
  const recorder = new Recorder(join(place.dir, 'history.jsonl'));
  t.teardown(() => {
    recorder.close();
    place.remove();
  });
  return { ledger: new Ledger('run', recorder), recorder };
}

function message(number: number): Message {
  return planSubmission({ ...PLACE, id: `1-1-${number}` }, seeded(number)).message;
}

t.test('one seed makes one step, byte for byte', async (t) => {
  const steps = [1, 1, 2].map((seed) => planSubmission(PLACE, seeded(seed)));
  t.ok(steps[0]?.message.bytes.equals(steps[1]?.message.bytes ?? Buffer.alloc(0)));
  t.notOk(steps[0]?.message.bytes.equals(steps[2]?.message.bytes ?? Buffer.alloc(0)));
});

t.test(
  'the workload has all shapes, sizes from bytes to MiB, several recipients, and producers that hang up',
  async (t) => {
    const steps = Array.from({ length: 1200 }, (_, n) =>
      planSubmission({ ...PLACE, id: `1-1-${n}` }, seeded(`step ${n}`)),
    );
    const shapes = new Set(steps.map(({ message }) => message.shape));
    t.equal(shapes.size, 9, [...shapes].join(' '));
    t.ok(steps.some(({ message }) => message.bytes.length > 2 ** 20));
    t.ok(steps.some(({ message }) => message.bytes.length < 300));
    t.ok(steps.some(({ message }) => message.recipients.length > 1));
    t.equal(new Set(steps.map(({ hangUp }) => hangUp)).size, 4);
  },
);

t.test('in a flood most messages have about the requested size', async (t) => {
  for (const floodBytes of [512 * 1024, 20_000, 40]) {
    const steps = Array.from({ length: 40 }, (_, n) => planSubmission({ ...PLACE, floodBytes }, seeded(n)));
    const near = steps.filter(
      ({ message }) => message.bytes.length >= floodBytes && message.bytes.length < floodBytes + 3000,
    );
    t.ok(near.length > 20, `${near.length} of 40 near ${floodBytes}`);
    t.ok(steps.every(({ message, hangUp }) => message.bytes.length < 700_000 && hangUp === undefined));
  }
});

t.test('a protocol without recipients gets messages with one recipient', async (t) => {
  const steps = Array.from({ length: 200 }, (_, n) =>
    planSubmission({ ...PLACE, envelope: false }, seeded(n)),
  );
  t.ok(steps.every(({ message }) => message.recipients.length === 1));
});

t.test('messages contain NUL bytes only where the protocol can carry them', async (t) => {
  const hasNul = (content: typeof smtp.content) =>
    Array.from({ length: 100 }, (_, n) => planSubmission({ ...PLACE, content }, seeded(n)).message).some(
      ({ bytes }) => bytes.includes(0),
    );
  t.notOk(hasNul(smtp.content));
  t.ok(hasNul(http.content));
});

t.test('the receiver mostly accepts, and defers only first deliveries', async (t) => {
  const answers = Array.from({ length: 1000 }, (_, n) => chooseReception(seeded(1), `1-1-${n}`, 1).answer);
  const later = answers.filter((answer) => answer === 'later').length;
  t.ok(later > 0 && later < 50, `${later} of 1000`);
  for (let n = 0; n < 1000; n++) t.equal(chooseReception(seeded(1), `1-1-${n}`, 2).answer, 'accept');
});

t.test('while calls fail many first deliveries are refused at once, and no later ones', async (t) => {
  const answers = Array.from({ length: 1000 }, (_, n) => chooseReception(seeded(1), `1-1-${n}`, 1, true));
  const refused = answers.filter(({ answer }) => answer === 'later');
  t.ok(refused.length > 200 && refused.length < 500, `${refused.length} of 1000`);
  t.ok(refused.every(({ evenHeld, delayMs }) => evenHeld && delayMs === 0));
  for (let n = 0; n < 1000; n++) t.equal(chooseReception(seeded(1), `1-1-${n}`, 2, true).answer, 'accept');
});

t.test('the ledger counts the messages that are at risk', async (t) => {
  const { ledger, recorder } = newLedger(t);
  const receipts = ledger.trackReceipts(recordReceipts(recorder));
  const [a, b, c] = [message(1), message(2), message(3)];
  for (const one of [a, b, c]) ledger.submitted(one, 1);
  ledger.answered(a.id, { outcome: 'confirmed', detail: '' });
  ledger.answered(b.id, { outcome: 'rejected', detail: '' });
  t.match(ledger.tally, { submitted: 3, confirmed: 1, rejected: 1, outstanding: 1, inFlight: 1 });
  t.same([...ledger.storedMarks(10).keys()], [a.id]);
  t.ok(a.bytes.includes(ledger.storedMarks(10).get(a.id) ?? 'none'), 'the message contains its mark');

  // This message is delivered and accepted before the producer has its answer.
  const sequence = receipts.delivered({ id: c.id, sizeBytes: 1, digest: c.digest, recipients: [0] });
  receipts.consumed(sequence, c.id, 'accepted');
  ledger.answered(c.id, { outcome: 'confirmed', detail: '' });
  t.match(ledger.tally, { outstanding: 1, inFlight: 0, delivered: 1 });
  ledger.stopExpecting([a.id]);
  t.match(ledger.tally, { outstanding: 0, backlogBytes: 0 });
  t.equal(ledger.wrongDelivery, false);
});

t.test('a message is outstanding until each of its recipients has accepted it', async (t) => {
  const { ledger, recorder } = newLedger(t);
  const receipts = ledger.trackReceipts(recordReceipts(recorder));
  const two = { ...message(1), recipients: ['r0.1@plugpull.test', 'r1.1@plugpull.test'] };
  ledger.submitted(two, 1);
  ledger.answered(two.id, { outcome: 'confirmed', detail: '' });
  const deliver = (recipient: number) => {
    const what = { id: two.id, sizeBytes: 1, digest: two.digest, recipients: [recipient] };
    receipts.consumed(receipts.delivered(what), two.id, 'accepted');
  };
  deliver(0);
  deliver(0);
  t.match(ledger, { outstanding: 1, awaited: 1 });
  deliver(1);
  t.match(ledger, { outstanding: 0, awaited: 0 });
});

t.test('a message whose consumption was not answered is not awaited until it comes again', async (t) => {
  const { ledger, recorder } = newLedger(t);
  const receipts = ledger.trackReceipts(recordReceipts(recorder));
  const { id, digest } = message(1);
  ledger.submitted(message(1), 1);
  ledger.answered(id, { outcome: 'confirmed', detail: '' });
  const what = { id, sizeBytes: 1, digest, recipients: [0] };
  receipts.consumed(receipts.delivered(what), id, 'unanswered');
  t.match(ledger, { outstanding: 1, awaited: 0 });
  receipts.refused(receipts.delivered(what), id, false, 'later');
  t.match(ledger, { outstanding: 1, awaited: 1 });
  receipts.refused(receipts.delivered(what), id, true, 'never');
  t.match(ledger, { outstanding: 1, awaited: 0 });
});

t.test('a delivery that was never submitted ends the round, and a changed message does not', async (t) => {
  const { ledger, recorder } = newLedger(t);
  const receipts = ledger.trackReceipts(recordReceipts(recorder));
  const changed = (id: string | null) => ({ id, sizeBytes: 1, digest: 'another', recipients: [0] });
  ledger.submitted(message(1), 1);
  ledger.answered(message(1).id, { outcome: 'confirmed', detail: '' });
  receipts.delivered(changed(message(1).id));
  t.equal(ledger.wrongDelivery, false, 'durability can still be measured');
  for (const id of [null, 'unknown']) {
    const other = newLedger(t);
    other.ledger.trackReceipts(recordReceipts(other.recorder)).delivered(changed(id));
    t.equal(other.ledger.wrongDelivery, true);
  }
});

t.test('a changed delivery is recorded with its difference, and both versions are reported', async (t) => {
  const { ledger, recorder } = newLedger(t);
  const receipts = ledger.trackReceipts(recordReceipts(recorder));
  const changes: ChangedDelivery[] = [];
  ledger.onChanged = (change) => void changes.push(change);
  const { id, bytes } = message(1);
  ledger.submitted(message(1), 1, () => bytes);
  const delivered = Buffer.concat([bytes.subarray(0, -2), Buffer.from('!\r\n')]);
  receipts.delivered({ id, sizeBytes: 1, digest: 'another', recipients: [0], bytes: delivered });
  t.match(changes, [{ id, sequence: 1, submitted: bytes, delivered }]);
  const event = recorder.events.at(-1);
  t.match(event, {
    kind: 'delivered',
    difference: new RegExp(`^first difference at byte ${bytes.length - 2} `),
  });
  t.notOk(event !== undefined && 'bytes' in event, 'the bytes are not in the history');
});

for (const inOrder of [true, false]) {
  const name = inOrder
    ? 'with a claimed order a producer keeps to one port and submits one message after the other'
    : 'without a claimed order a producer uses all ports and submits several messages at once';
  t.test(name, async (t) => {
    const { ledger, recorder } = newLedger(t);
    const underWay = new Map<string, number>();
    const portsOf = new Map<string, Set<number>>();
    let most = 0;
    const target: typeof http = {
      ...http,
      connect: async ({ port }) => ({
        async submit({ id }) {
          const producer = id.split('-')[1] ?? '';
          const now = (underWay.get(producer) ?? 0) + 1;
          underWay.set(producer, now);
          most = Math.max(most, now);
          portsOf.set(producer, (portsOf.get(producer) ?? new Set()).add(port));
          await new Promise((resolve) => setImmediate(resolve));
          underWay.set(producer, (underWay.get(producer) ?? 1) - 1);
          return { outcome: 'confirmed', detail: '' };
        },
        usable: () => true,
        async close() {},
      }),
    };
    const what = {
      run: 'run',
      round: 1,
      protocol: target,
      addresses: [1, 2].map(localAddress),
      ledger,
      random: seeded(1),
    };
    const producers = new Producers({ ...what, count: 3, depth: 4, inOrder, signal: never });
    producers.flood(true);
    // Each connection has 40 messages, so every producer opens more than one.
    await ledger.waitUntil(() => ledger.tally.confirmed >= 300, 60_000, never);
    await producers.stop();
    t.ok(ledger.tally.confirmed >= 300);
    t.equal(most, inOrder ? 1 : 4);
    t.same(
      [...portsOf.values()].map(({ size }) => size),
      inOrder ? [1, 1, 1] : [2, 2, 2],
    );
    if (!inOrder) return;
    const waiting = new Set<number>();
    for (const event of recorder.events) {
      if (event.kind === 'submitted') {
        t.notOk(waiting.has(event.producer), 'a submit follows the answer to the one before');
        waiting.add(event.producer);
      } else if (event.kind === 'answered') waiting.delete(Number(event.id.split('-')[1]));
    }
  });
}

for (const inOrder of [true, false]) {
  const name = `a producer goes on to the next node after a rejection or a failed connect${inOrder ? ', also with a claimed order' : ''}`;
  t.test(name, async (t) => {
    const { ledger, recorder } = newLedger(t);
    const connects: string[] = [];
    const target: typeof http = {
      ...http,
      async connect({ node }) {
        connects.push(node ?? '');
        if (node === 'down') throw new Error('it is down');
        return {
          submit: async () => ({ outcome: node === 'leader' ? 'confirmed' : 'rejected', detail: '' }),
          usable: () => true,
          async close() {},
        };
      },
    };
    const addresses = ['follower', 'down', 'leader'].map((node) => ({ ...localAddress(1), node }));
    const what = { run: 'run', round: 1, protocol: target, addresses, ledger, random: seeded(1) };
    const producers = new Producers({ ...what, count: 1, depth: 1, inOrder, signal: never });
    producers.flood(true);
    await ledger.waitUntil(() => ledger.tally.confirmed >= 100, 60_000, never);
    await producers.stop();
    t.same(connects.slice(0, 3), ['follower', 'down', 'leader']);
    t.equal(ledger.confirmedBy('leader'), ledger.tally.confirmed);
    const answered = recorder.events.flatMap((event) => (event.kind === 'answered' ? [event] : []));
    t.equal(answered[0]?.node, 'follower');
    const rejected = answered.filter(({ outcome }) => outcome === 'rejected').length;
    t.equal(
      rejected,
      connects.filter((node) => node === 'follower').length,
      'one message for each connection',
    );
    if (inOrder) t.equal(rejected, 1, 'it stays with the node that takes messages');
  });
}

t.test('a target without nodes leaves no node in the history', async (t) => {
  const { ledger, recorder } = newLedger(t);
  ledger.submitted(message(1), 1);
  ledger.answered(message(1).id, { outcome: 'confirmed', detail: '' });
  ledger.trackReceipts(recordReceipts(recorder)).delivered({
    ...{ id: message(1).id, sizeBytes: 1, digest: message(1).digest, recipients: [0] },
  });
  t.same(
    recorder.events.map(({ kind }) => kind),
    ['submitted', 'answered', 'delivered'],
  );
  for (const event of recorder.events) t.notOk('node' in event, event.kind);
});

t.test('a wait ends when its condition holds, at its limit, or when the run is aborted', async (t) => {
  const { ledger } = newLedger(t);
  const confirmed = ledger.waitUntil(() => ledger.tally.confirmed > 0, 10_000, never);
  ledger.submitted(message(1), 1);
  ledger.answered(message(1).id, { outcome: 'confirmed', detail: '' });
  t.equal(await confirmed, 'reached');
  t.equal(await ledger.waitUntil(() => false, 5, never), 'timeout');
  const controller = new AbortController();
  const given = ledger.waitUntil(() => false, 10_000, controller.signal);
  controller.abort();
  t.equal(await given, 'timeout');
});
