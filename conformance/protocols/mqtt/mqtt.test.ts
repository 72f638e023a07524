import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { generate, type IPublishPacket, type Packet, parser } from 'mqtt-packet';
import t, { type Test } from 'tap';
import { seeded } from '../../fixtures/random.js';
import { ReceiptList } from '../../fixtures/receipts.js';
import { localAddress } from '../address.js';
import { compose } from '../message.js';
import { answerOf, mqtt } from './mqtt.js';

const RUN = 'run-1';
const message = (id: string) => compose({ run: RUN, id, shape: 'text' }, seeded(1));
const VERSION = { protocolVersion: 5 };

/** Sends a packet to the client of a connection. */
type Send = (packet: Packet) => void;

/**
 * Starts a server that accepts each connection and subscription, and answers pings. `answer` may handle a packet
 * itself, and returns true then.
 */
async function scripted(
  t: Test,
  answer: (packet: Packet, send: Send, socket: Socket) => boolean | undefined,
) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    const send: Send = (packet) => void socket.write(generate(packet, VERSION));
    const packets = parser(VERSION);
    packets.on('packet', (packet) => {
      if (answer(packet, send, socket)) return;
      if (packet.cmd === 'connect') send({ cmd: 'connack', reasonCode: 0, sessionPresent: true });
      if (packet.cmd === 'pingreq') send({ cmd: 'pingresp' });
      if (packet.cmd === 'subscribe') send({ cmd: 'suback', messageId: packet.messageId ?? 0, granted: [1] });
    });
    socket.on('data', (chunk) => packets.parse(chunk));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

function publish(id: string, messageId: number, dup = false): IPublishPacket {
  const { bytes } = message(id);
  return {
    cmd: 'publish',
    topic: 'plugpull/messages',
    payload: bytes,
    messageId,
    qos: 1,
    dup,
    retain: false,
  };
}

t.test('each reason code of a PUBACK has its exact outcome', async (t) => {
  t.match(answerOf(0x00), { outcome: 'confirmed', detail: 'PUBACK 0x00' });
  t.match(answerOf(0x10), { outcome: 'rejected', detail: 'PUBACK 0x10: no subscribers' });
  for (const code of [0x80, 0x83, 0x87, 0x90, 0x97, 0x99]) t.match(answerOf(code), { outcome: 'rejected' });
  t.match(answerOf(0x11), { outcome: 'indefinite' });
});

t.test('a submit is confirmed by its own PUBACK only, and a lost one is indefinite', async (t) => {
  const port = await scripted(t, (packet, send, socket) => {
    if (packet.cmd !== 'publish') return false;
    const { messageId = 0 } = packet;
    if (messageId === 1) send({ cmd: 'puback', messageId: 2, reasonCode: 0 });
    if (messageId === 2) send({ cmd: 'puback', messageId: 1, reasonCode: 0x97 });
    if (messageId === 3) socket.destroy();
    return true;
  });
  const producer = await mqtt.connect(localAddress(port));
  const answers = await Promise.all([producer.submit(message('1')), producer.submit(message('2'))]);
  t.match(answers, [{ outcome: 'rejected', detail: 'PUBACK 0x97' }, { outcome: 'confirmed' }]);
  t.match(await producer.submit(message('3')), { outcome: 'indefinite' });
  t.notOk(producer.usable());
  await producer.close();
});

t.test('no answer and an answer that is not MQTT are indefinite', async (t) => {
  for (const [reply, detail] of [
    [undefined, /no answer within 300 ms/],
    [Buffer.alloc(8, 0xff), /./],
  ] as const) {
    const port = await scripted(t, (packet, _send, socket) => {
      if (packet.cmd !== 'publish') return false;
      if (reply) socket.write(reply);
      return true;
    });
    const producer = await mqtt.connect(localAddress(port), { timeoutMs: 300 });
    t.match(await producer.submit(message('1')), { outcome: 'indefinite', detail });
    t.notOk(producer.usable());
    await producer.close();
  }
});

t.test('a refused connection is target-unavailable', async (t) => {
  const port = await scripted(t, (packet, send) => {
    if (packet.cmd !== 'connect') return false;
    send({ cmd: 'connack', reasonCode: 0x88, sessionPresent: false });
    return true;
  });
  await t.rejects(mqtt.connect(localAddress(port)), { code: 'target-unavailable', message: /CONNACK 0x88/ });
  t.notOk(await mqtt.ready(localAddress(port), 1000));
});

t.test('ready makes the session of the receiver when the server has no subscriber', async (t) => {
  const seen: string[] = [];
  let subscribed = false;
  const port = await scripted(t, (packet, send) => {
    if (packet.cmd === 'connect') seen.push(`connect ${packet.clean ? 'clean' : packet.clientId}`);
    if (packet.cmd === 'subscribe') {
      subscribed = true;
      seen.push(packet.subscriptions.map(({ topic, qos }) => `subscribe ${topic} ${qos}`).join());
    }
    if (packet.cmd !== 'publish') return false;
    seen.push(`publish ${packet.topic}`);
    send({ cmd: 'puback', messageId: packet.messageId ?? 0, reasonCode: subscribed ? 0 : 0x10 });
    return true;
  });
  t.ok(await mqtt.ready(localAddress(port), 1000));
  t.strictSame(seen.splice(0), [
    'connect clean',
    'publish plugpull/ready',
    'connect plugpull-receiver',
    'subscribe plugpull/# 1',
  ]);
  t.ok(await mqtt.ready(localAddress(port), 1000));
  t.strictSame(seen, ['connect clean', 'publish plugpull/ready'], 'the session exists: it is left alone');
});

t.test('an acknowledgement is known after the next round trip, and broken without one', async (t) => {
  for (const answersPing of [true, false]) {
    const port = await scripted(t, (packet, send, socket) => {
      if (packet.cmd === 'subscribe') queueMicrotask(() => send(publish('1', 7)));
      if (packet.cmd !== 'pingreq' || answersPing) return false;
      socket.destroy();
      return true;
    });
    const receipts = new ReceiptList();
    const receiver = await mqtt.receive([localAddress(port)], { run: RUN, receipts });
    await receipts.waitFor('settled', 1);
    await receiver.close();
    t.match(receipts.ofKind('delivered')[0], { id: '1', digest: message('1').digest });
    t.match(receipts.ofKind('consumed')[0], { sequence: 1, how: 'accepted' });
    t.match(receipts.ofKind('settled')[0], { sequences: [1], how: answersPing ? 'known' : 'broken' });
  }
});

t.test('a refused delivery is not acknowledged, and comes again on the next connection', async (t) => {
  const acknowledged: number[] = [];
  let connections = 0;
  const port = await scripted(t, (packet, send) => {
    if (packet.cmd === 'connect') connections += 1;
    if (packet.cmd === 'puback') acknowledged.push(packet.messageId ?? 0);
    if (packet.cmd === 'subscribe') queueMicrotask(() => send(publish('1', connections, connections > 1)));
    return false;
  });
  const receipts = new ReceiptList();
  const replyFor = (_id: string | null, delivery: number) =>
    ({ answer: delivery === 1 ? 'later' : 'accept', delayMs: 0 }) as const;
  const receiver = await mqtt.receive([localAddress(port)], { run: RUN, receipts, replyFor });
  await receipts.waitFor('consumed', 1);
  await receiver.close();
  t.equal(connections, 2);
  t.strictSame(acknowledged, [2], 'only the second delivery');
  t.match(receipts.ofKind('refused'), [{ sequence: 1, permanent: false }]);
});

t.test('deliveries that are held when the connection breaks are refused, and not acknowledged', async (t) => {
  let connection: Socket | undefined;
  let onReconnect = () => {};
  const reconnected = new Promise<void>((resolve) => {
    onReconnect = resolve;
  });
  const acknowledged: number[] = [];
  const port = await scripted(t, (packet, send, socket) => {
    if (packet.cmd === 'puback') acknowledged.push(packet.messageId ?? 0);
    if (packet.cmd !== 'subscribe') return false;
    if (connection !== undefined) onReconnect();
    if (connection !== undefined) return false;
    connection = socket;
    queueMicrotask(() => {
      send(publish('1', 1));
      send(publish('2', 2));
    });
    return false;
  });
  const receipts = new ReceiptList();
  const receiver = await mqtt.receive([localAddress(port)], { run: RUN, receipts });
  receiver.hold();
  await receipts.waitFor('delivered', 2);
  t.equal(receiver.inDelivery(), 2);
  connection?.destroy();
  await reconnected;
  receiver.release();
  await receipts.waitFor('refused', 2);
  await receiver.close();
  t.strictSame(receipts.ofKind('consumed'), []);
  t.equal(receiver.inDelivery(), 0);
  t.strictSame(acknowledged, []);
});
