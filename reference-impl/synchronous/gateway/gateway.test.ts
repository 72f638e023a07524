import { once } from 'node:events';
import { chmodSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import {
  programPath,
  run,
  runQueueCommand,
  Service,
  startGateway,
  temporaryDirectory,
} from './fixtures/processes.js';
import { RawClient } from './fixtures/raw-client.js';
import { Sink } from './fixtures/sink.js';
import { withoutTrace } from './fixtures/without-trace.js';

const BACKLOG = 3000;

async function sink(test: Test): Promise<Sink> {
  const opened = await Sink.open();
  test.teardown(() => opened.close());
  return opened;
}

function portOf(ports: readonly number[], at = 0): number {
  const port = ports[at];
  if (port === undefined) throw new Error(`there is no port ${at}`);
  return port;
}

t.test(
  'the supervisor restarts a killed worker and a killed helper, and no confirmed message is lost',
  async (t) => {
    const receiver = await sink(t);
    const { service, directory, ports } = await startGateway(t, receiver.address);
    const confirmed: string[] = [];
    const submit = async (at: number) => {
      const text = `message ${confirmed.length}\r\n`;
      const client = await RawClient.ready(portOf(ports, at));
      if ((await client.submit(text)).startsWith('250')) confirmed.push(text);
      client.close();
    };
    await submit(0);
    for (const name of ['worker-0', 'helper-0', 'worker-1']) {
      const last = service.events.findLast(({ event, service: of }) => event === 'ready' && of === name);
      const seen = service.events.length;
      process.kill(last?.pid ?? Number.NaN, 'SIGKILL');
      const isOf = (wanted: string) => (event: { event: string; service?: string }) =>
        event.event === wanted && event.service === name;
      t.match(await service.waitForEvent(isOf('exit'), seen), { signal: 'SIGKILL' });
      t.match(await service.waitForEvent(isOf('restart'), seen), { inMs: 0 });
      const { port } = await service.waitForEvent(isOf('ready'), seen);
      t.equal(port, last?.port, 'a worker keeps its port');
      await submit(0);
      await submit(1);
    }
    t.equal(confirmed.length, 7, 'all messages were confirmed');
    // Messages that a killed worker had locked may be delivered twice.
    const texts = () => [...new Set(receiver.messages.map(({ data }) => withoutTrace(data)))];
    while (texts().length < 7) await receiver.received(receiver.messages.length + 1);
    t.strictSame(texts().sort(), [...confirmed].sort());
    t.equal(await service.stop(), 0);
    t.equal(service.stderr, '');
    t.match(JSON.parse((await runQueueCommand('verify', '--queue', directory)).stdout), {
      ok: true,
      live: 0,
    });
  },
);

t.test('a worker that stays stopped is killed, and its successor takes over its port', async (t) => {
  const receiver = await sink(t);
  const { service, ports } = await startGateway(t, receiver.address);
  const worker = service.events.find(({ event, service: of }) => event === 'ready' && of === 'worker-0');
  const seen = service.events.length;
  process.kill(worker?.pid ?? Number.NaN, 'SIGSTOP');
  const isOf = (wanted: string) => (event: { event: string; service?: string }) =>
    event.event === wanted && event.service === 'worker-0';
  t.match(await service.waitForEvent(isOf('stopped-too-long'), seen), { pid: worker?.pid });
  t.match(await service.waitForEvent(isOf('exit'), seen), { signal: 'SIGKILL' });
  t.equal((await service.waitForEvent(isOf('ready'), seen)).port, worker?.port);
  const client = await RawClient.ready(portOf(ports, 0));
  t.match(await client.submit('one\r\n'), /^250/);
  client.close();
  await receiver.received(1);
});

t.test('a gateway whose supervisor was killed stops by itself', async (t) => {
  const { service, ports } = await startGateway(t, '127.0.0.1:1', '--workers', '1');
  const client = await RawClient.ready(portOf(ports));
  process.kill(service.pid, 'SIGKILL');
  t.match(await client.reply(), /^421/);
  await service.exited;
});

t.test('a service that cannot start ends the gateway with its exit code', async (t) => {
  const receiver = await sink(t);
  const queue = join(temporaryDirectory(t), 'queue');
  await runQueueCommand('install', '--queue', queue, '--data-bytes', '1MiB', '--entries', '64');
  const args = [
    '--queue',
    queue,
    '--next-hop',
    receiver.address,
    '--workers',
    '1',
    '--smtp-ports',
    `${receiver.port}`,
  ];
  const service = Service.start(t, 'gateway', ...args);
  t.equal(await service.exited, 2);
  t.match(service.stderr, /smtp: cannot listen on .*EADDRINUSE.*\n.*worker-0 cannot start/);
});

t.test('mail goes through two gateways in a row byte for byte', async (t) => {
  const receiver = await sink(t);
  const second = await startGateway(t, receiver.address, '--workers', '1');
  const first = await startGateway(t, `127.0.0.1:${portOf(second.ports)}`, '--workers', '1', '--pairs', '0');
  const line = fc.uint8Array({ maxLength: 400 }).map((bytes) =>
    Buffer.from(bytes)
      .toString('latin1')
      .replace(/[\r\n]/g, '.'),
  );
  const large = `${'0123456789abcdef'.repeat(4)}\r\n`.repeat(20_000);
  const bodies = fc.sample(fc.array(line, { maxLength: 10 }), 40).map((lines, number) => {
    const text = [`number ${number}`, ...lines]
      .map((one) => (one.startsWith('.') ? `.${one}` : one))
      .join('\r\n');
    return `${text}\r\n`;
  });
  const client = await RawClient.ready(portOf(first.ports));
  bodies.push(large);
  for (const body of bodies) t.match(await client.submit(Buffer.from(body, 'latin1')), /^250/);
  client.close();
  const unstuffed = bodies.map((body) => body.replace(/^\./gm, ''));
  const received = (await receiver.received(bodies.length)).map(({ data }) => withoutTrace(data, 2));
  t.strictSame(received.sort(), unstuffed.sort());
});

t.test('a queue with two pairs uses both, each with its helper', async (t) => {
  const receiver = await sink(t);
  const directory = join(temporaryDirectory(t), 'queue');
  const install = [
    '--data-bytes',
    '4MiB',
    '--entries',
    '64',
    '--pairs',
    'a,b',
    '--next-hop',
    receiver.address,
  ];
  await runQueueCommand('install', '--queue', directory, ...install);
  const service = Service.start(t, 'gateway', '--queue', directory, '--workers', '1');
  const { ports } = await service.waitForEvent(
    ({ event, service: of }) => event === 'ready' && of === 'gateway',
  );
  t.ok(service.events.some(({ service: of }) => of === 'helper-1'));
  for (let number = 0; number < 10; number++) {
    const client = await RawClient.ready(portOf(ports ?? []));
    t.match(await client.submit(`${number}\r\n`), /^250/);
    client.close();
  }
  await receiver.received(10);
});

t.test('a full queue answers 452, loses nothing, and accepts mail again when it has emptied', async (t) => {
  const port = await freePort();
  const directory = join(temporaryDirectory(t), 'queue');
  await runQueueCommand('install', '--queue', directory, '--data-bytes', '1MiB', '--entries', '16');
  const flags = ['--next-hop', `127.0.0.1:${port}`, '--delivery-backoff-initial-ms', '50', '--workers', '1'];
  const service = Service.start(
    t,
    'gateway',
    '--queue',
    directory,
    '--delivery-backoff-max-ms',
    '100',
    ...flags,
  );
  const { ports } = await service.waitForEvent(
    ({ event, service: of }) => event === 'ready' && of === 'gateway',
  );
  const client = await RawClient.ready(portOf(ports ?? []));
  const confirmed: string[] = [];
  for (;;) {
    const text = `message ${confirmed.length}\r\n`;
    const reply = await client.submit(text);
    if (!reply.startsWith('250')) {
      t.match(reply, /^452 4\.3\.1 No free index entry/);
      break;
    }
    confirmed.push(text);
  }
  t.equal(confirmed.length, 15, 'new mail leaves a sixteenth of the 16 entries free');
  t.match(
    await client.submit(`${'y'.repeat(300_000)}\r\n`),
    /^552 5\.3\.4/,
    'the message is larger than any record',
  );
  const receiver = await Sink.open({}, port);
  t.teardown(() => receiver.close());
  const texts = (await receiver.received(15)).map(({ data }) => withoutTrace(data));
  t.strictSame(texts.sort(), confirmed.sort());
  // When the sink has received the last message, the queue may not have removed it yet.
  while (!(await client.submit('again\r\n')).startsWith('250')) t.comment('not yet');
  await receiver.received(16);
  client.close();
});

t.test('thousands of messages that wait for a host that is down use little processor time', async (t) => {
  const directory = join(temporaryDirectory(t), 'queue');
  await runQueueCommand('install', '--queue', directory, '--data-bytes', '8MiB', '--entries', '4096');
  const helper = Service.start(t, 'helper', '--queue', directory);
  await helper.waitForEvent(({ event }) => event === 'ready');
  const patient = [
    '--next-hop',
    '127.0.0.1:1',
    '--delivery-backoff-initial-ms',
    '1h',
    '--delivery-backoff-max-ms',
    '1h',
  ];
  const worker = Service.start(t, 'worker', '--queue', directory, ...patient);
  const { port } = await worker.waitForEvent(({ event }) => event === 'ready');
  const client = await RawClient.ready(port ?? 0);
  const message = 'MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nx\r\n.\r\n';
  const replies = await client.askAll(message.repeat(BACKLOG), 4 * BACKLOG);
  t.ok(replies.every((reply) => /^(250|354)/.test(reply)));
  client.close();
  const usedMs = () => cpuMs(worker.pid);
  const before = usedMs();
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const spentMs = usedMs() - before;
  t.ok(spentMs < 400, `the worker used ${spentMs} ms of processor time in one second`);
});

/** Returns the processor time that a process has used, in milliseconds. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'latin1')
    .replace(/^.*\) /, '')
    .split(' ');
  return 10 * (Number(fields[11]) + Number(fields[12]));
}

const swaks = programPath('swaks');
t.test(
  'a message sent by swaks arrives byte for byte',
  { skip: swaks === undefined && 'swaks is not installed' },
  async (t) => {
    const receiver = await sink(t);
    const { ports } = await startGateway(t, receiver.address, '--workers', '1');
    const message =
      'Subject: test\r\n\r\n.one dot\r\n..two\r\nGr\xc3\xbc\xc3\x9fe \xff\x80\x01\r\n\r\n.\r\n \r\n';
    // With --no-data-fixup, swaks sends the file unchanged and a line end. So the test must stuff the dots.
    const wire = `${message.replace(/^\./gm, '..')}.`;
    const file = join(temporaryDirectory(t), 'message');
    writeFileSync(file, wire, 'latin1');
    for (const pipelining of [[], ['--pipeline']]) {
      const to = 'one@example.net,two@example.net';
      const args = [
        '--server',
        '127.0.0.1',
        '--port',
        `${portOf(ports)}`,
        '--from',
        'me@example.org',
        '--to',
        to,
      ];
      const { code, stdout } = await run(swaks ?? '', [
        ...args,
        '--data',
        `@${file}`,
        '--no-data-fixup',
        ...pipelining,
      ]);
      t.equal(code, 0, stdout);
    }
    for (const { sender, recipients, data } of await receiver.received(2)) {
      t.equal(sender, 'me@example.org');
      t.strictSame(recipients, ['one@example.net', 'two@example.net']);
      t.equal(withoutTrace(data), message);
    }
  },
);

const MESSAGES = 20;
const source = programPath('smtp-source');
const dump = programPath('smtp-sink');
t.test(
  "Postfix's smtp-source sends through a gateway to Postfix's smtp-sink",
  {
    skip:
      (source === undefined || dump === undefined) && "Postfix's smtp-source and smtp-sink are not installed",
  },
  async (t) => {
    const file = join(temporaryDirectory(t), 'message');
    const lines = ['Subject: test', '', '.dot', '..', '.', 'Gr\xfc\xdfe', 'x'.repeat(900), ''];
    writeFileSync(file, lines.map((line) => `${line}\n`).join(''), 'latin1');
    const send = (port: number) =>
      run(source ?? '', ['-s', '4', '-m', `${MESSAGES}`, '-F', file, `127.0.0.1:${port}`]);
    const dumpsOf = async (deliver: (port: number) => Promise<unknown>): Promise<string[]> => {
      const directory = temporaryDirectory(t);
      chmodSync(directory, 0o777);
      const port = await freePort();
      // As root, smtp-sink must change its user and its root directory.
      const asRoot = process.getuid?.() === 0 ? ['-u', 'nobody', '-R', directory] : [];
      const target = process.getuid?.() === 0 ? 'dump.' : join(directory, 'dump.');
      const place = ['-M', `${MESSAGES}`, '-d', target, `127.0.0.1:${port}`, '100'];
      const received = run(dump ?? '', [...asRoot, ...place]);
      await listening(port);
      await deliver(port);
      t.equal((await received).code, 0);
      const dumps = readdirSync(directory).map((name) => readFileSync(join(directory, name), 'latin1'));
      // Remove the headers that smtp-sink adds. They end with the time zone in brackets.
      return dumps.map((text) => text.replace(/^[\s\S]*? \([A-Z]+\)\n/, ''));
    };
    // The sink exits with the last message while the source is still connected, so the exit code of the
    // source means nothing.
    const direct = await dumpsOf(send);
    t.equal(direct.length, MESSAGES);
    t.match(direct[0], 'Subject: test\n\n.dot\n..\n.\nGr\xfc\xdfe\nxxx');
    const relayed = await dumpsOf(async (port) => {
      const { ports } = await startGateway(t, `127.0.0.1:${port}`, '--workers', '1');
      const { code, stderr } = await send(portOf(ports));
      t.equal(code, 0, stderr);
    });
    t.strictSame(
      relayed.map((text) => text.replace(/^Received: .*\n(?:\t.*\n)+/, '')),
      direct,
    );
    t.ok(relayed.every((text) => text.startsWith('Received: from ')));
  },
);

/** Resolves when a server listens on the port. */
async function listening(port: number): Promise<void> {
  for (;;) {
    const socket = connect(port, '127.0.0.1');
    const isUp = await once(socket, 'connect').then(
      () => true,
      () => false,
    );
    socket.destroy();
    if (isUp) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Returns a port that was free a moment ago. */
async function freePort(): Promise<number> {
  const opened = await Sink.open();
  await opened.close();
  return opened.port;
}
