import t from 'tap';
import { RawHttp, requestOf } from './fixtures/raw-http.js';
import { serve, until } from './fixtures/served.js';

const PRODUCERS = 8;
const RECEIVERS = 8;
const MESSAGES_EACH = 60;

t.test('clients that hang up anywhere lose no message, and no message is consumed twice', async (t) => {
  const { store, front, client } = await serve(t, { leaseMs: 100 });
  const confirmed: string[] = [];
  const consumed: string[] = [];
  let hangUps = 0;

  const produce = async (name: number) => {
    let http = await RawHttp.open(front.port);
    for (let at = 0; at < MESSAGES_EACH; at += 1) {
      const id = `${name}-${at}`;
      const request = requestOf('PUT', `/messages/${id}`, Buffer.alloc(at * 700, 'x'));
      if (at % 5 === 0) {
        hangUps += 1;
        http.send(request.subarray(0, Math.ceil((request.length * (at % 7)) / 6)));
        if (at % 2 === 0) http.reset();
        else http.close();
        http = await RawHttp.open(front.port);
        continue;
      }
      http.send(request);
      const { status } = await http.answer();
      if (status === 201) confirmed.push(id);
    }
    http.close();
  };

  let isDone = false;
  const receive = async (name: number) => {
    let http = await RawHttp.open(front.port);
    for (let at = 0; !isDone; at += 1) {
      http.send(requestOf('POST', '/leases?wait=50'));
      if ((at + name) % 9 === 0) {
        // The answer is lost, half read, or refused.
        hangUps += 1;
        if (at % 2 === 0) await http.answer();
        http.reset();
        http = await RawHttp.open(front.port);
        continue;
      }
      const { status, headers } = await http.answer();
      if (status !== 200) continue;
      const consume = requestOf('DELETE', `/leases/${headers.lease}`);
      http.send((at + name) % 4 === 0 ? Buffer.concat([consume, consume]) : consume);
      const answers = [await http.answer()];
      if ((at + name) % 4 === 0) answers.push(await http.answer());
      t.match(
        answers.map((answer) => answer.status),
        answers.map(() => answers[0]?.status),
        'the same request has the same answer',
      );
      if (answers[0]?.status === 204) consumed.push(String(headers['message-id']));
    }
    http.close();
  };

  const receivers = Array.from({ length: RECEIVERS }, (_, name) => receive(name));
  await Promise.all(Array.from({ length: PRODUCERS }, (_, name) => produce(name)));
  await until(() => store.queues()[0]?.messages === 0);
  isDone = true;
  await Promise.all(receivers);

  t.ok(hangUps > PRODUCERS * 10);
  t.equal(confirmed.length, (PRODUCERS * MESSAGES_EACH * 4) / 5);
  t.same([...store.consumed].sort(), [...store.stored].sort(), 'each message was consumed once');
  t.same([...consumed].sort(), [...store.consumed].sort(), 'each consumption was answered');
  const stored = new Set(store.stored);
  t.ok(confirmed.every((id) => stored.has(id)));
  const state = JSON.parse((await (await client()).ask('GET', '/status')).body).front;
  t.match(state, { leases: 0, bufferedBytes: 0, waitingReceivers: 0 });
});
