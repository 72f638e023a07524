import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { seeded } from '../fixtures/random.js';
import { freePort, RealNode, untilTrue } from '../fixtures/real-node.js';
import { notInstalled } from '../fixtures/real-server.js';
import { ReceiptList } from '../fixtures/receipts.js';
import { TARGET_SCHEMA } from '../targets/reference.js';
import { type Address, localAddress } from './address.js';
import { compose } from './message.js';
import type { Answer, DeliveryReply, Protocol } from './protocol.js';
import { protocolOf } from './registry/registry.js';

const RUN = 'run-1';
const SCRIPTS = join(dirname(TARGET_SCHEMA), '../targets/systems');
const message = (id: string) => compose({ run: RUN, id, shape: 'text' }, seeded(1));
const skipWithout = (program: string) => {
  const why = notInstalled(program);
  return why === undefined ? {} : { skip: why };
};

function tempDir(t: Test): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-cluster-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true, maxRetries: 20 }));
  // A server that does not run as root must be able to open its data directory.
  spawnSync('chmod', ['755', dir]);
  return dir;
}

async function nodeAddress(node: string): Promise<Address> {
  return { ...localAddress(await freePort()), node };
}

async function submit(protocol: Protocol, address: Address, id: string): Promise<Answer> {
  const producer = await protocol.connect(address, { timeoutMs: 2000 });
  const answer = await producer.submit(message(id));
  await producer.close();
  return answer;
}

t.test(
  'nats: a stream has a copy on each node, and lives on without one',
  skipWithout('nats-server'),
  async (t) => {
    const nats = await protocolOf('nats');
    const dir = tempDir(t);
    const addresses = await Promise.all(['a', 'b', 'c'].map(nodeAddress));
    const routes = await Promise.all(addresses.map(freePort));
    const nodes = addresses.map(({ node, port }, index) => {
      const file = join(dir, `${node}.conf`);
      writeFileSync(
        file,
        `server_name: ${node}
listen: 127.0.0.1:${port}
jetstream { store_dir: "${dir}/${node}" }
cluster { name: c, listen: 127.0.0.1:${routes[index]}, routes: [${routes.map((route) => `nats://127.0.0.1:${route}`).join(', ')}] }
`,
      );
      return () => RealNode.start(t, ['nats-server', '-c', file]);
    });
    const isReady = async (some: Address[]) =>
      (await Promise.all(some.map((one) => nats.ready(one, 1000, { replicas: 3 })))).every(Boolean);

    const [a] = nodes.slice(0, 2).map((start) => start());
    await untilTrue('a answers', async () =>
      nats
        .connect(addresses[0] as Address)
        .then((one) => one.close())
        .then(
          () => true,
          () => false,
        ),
    );
    t.notOk(await isReady(addresses.slice(0, 1)), 'two of three nodes cannot hold three copies');
    nodes[2]?.();
    await untilTrue('ready', () => isReady(addresses));
    const receipts = new ReceiptList();
    const receiver = await nats.receive(addresses, { run: RUN, receipts });
    t.teardown(() => receiver.close());
    for (const address of addresses)
      t.match(await submit(nats, address, `on-${address.node}`), { outcome: 'confirmed' });
    await receipts.waitFor('consumed', 3);
    for (const { node } of receipts.ofKind('delivered'))
      t.ok(
        addresses.some((address) => address.node === node),
        `delivered by ${node}`,
      );

    a?.signal('SIGSTOP');
    const startMs = performance.now();
    await t.rejects(nats.connect(addresses[0] as Address, { timeoutMs: 500 }), { message: /^node a \(127/ });
    t.ok(performance.now() - startMs < 30_000, 'a stopped node does not keep a producer');
    const others = addresses.slice(1);
    await untilTrue('the others are ready', () => isReady(others));
    for (const address of others)
      t.match(await submit(nats, address, `without-a-on-${address.node}`), { outcome: 'confirmed' });
    await receipts.waitFor('consumed', 5);
  },
);

t.test(
  'redis: only the primary takes messages, and WAIT decides about the answer',
  skipWithout('redis-server'),
  async (t) => {
    const [wait, stream] = [await protocolOf('redis-wait'), await protocolOf('redis-stream')];
    const dir = tempDir(t);
    const [primary, replica] = [await nodeAddress('a'), await nodeAddress('b')];
    const start = ({ node, port }: Address, ...args: string[]) => {
      const data = join(dir, node ?? '');
      mkdirSync(data, { recursive: true });
      return RealNode.start(t, [
        'redis-server',
        '--bind',
        '127.0.0.1',
        '--port',
        `${port}`,
        '--dir',
        data,
        ...args,
      ]);
    };
    start(primary);
    await untilTrue('the primary is ready', () => stream.ready(primary, 1000));
    t.notOk(await wait.ready(primary, 1000), 'WAIT needs a replica');
    const second = start(
      replica,
      '--replicaof',
      '127.0.0.1',
      `${primary.port}`,
      '--repl-diskless-sync-delay',
      '0',
    );
    await untilTrue('ready', () => wait.ready(primary, 1000));
    t.notOk(await stream.ready(replica, 1000));
    await t.rejects(stream.connect(replica), {
      code: 'target-unavailable',
      message: /a slave takes no messages/,
    });
    // As without nodes: an address that is no node is taken as it is.
    const readOnly = localAddress(replica.port);
    t.match(await submit(stream, readOnly, 'read-only'), { outcome: 'rejected', detail: /READONLY/ });
    t.match(await submit(wait, primary, '1'), { outcome: 'confirmed', detail: /WAIT 1 answered 1/ });
    const receipts = new ReceiptList();
    const receiver = await wait.receive([primary, replica], { run: RUN, receipts });
    t.teardown(() => receiver.close());
    await receipts.waitFor('consumed', 1);
    t.match(receipts.ofKind('delivered'), [{ id: '1', node: 'a' }]);

    await second.kill();
    t.match(await submit(wait, primary, '2'), { outcome: 'indefinite', detail: /WAIT 1 answered 0/ });
    await receipts.waitFor('consumed', 2);
  },
);

t.test('postgres: a standby takes no messages', skipWithout('/usr/lib/postgresql'), async (t) => {
  const postgres = await protocolOf('postgres');
  const dir = tempDir(t);
  const [primary, standby] = [await nodeAddress('a'), await nodeAddress('b')];
  const script = join(SCRIPTS, 'postgres.sh');
  const data = (node: string) => join(dir, node);
  for (const node of ['a', 'b']) mkdirSync(data(node));
  const run = (command: string[]) => {
    const [program = '', ...args] = command;
    const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' });
    t.equal(status, 0, stderr);
  };
  const serve = ({ node, port }: Address) =>
    RealNode.start(t, ['sh', script, 'serve', data(node ?? ''), `${port}`, 'on']);
  run(['sh', script, 'install', data('a')]);
  serve(primary);
  await untilTrue('the primary is ready', () => postgres.ready(primary, 1000));
  const [version = ''] = readdirSync('/usr/lib/postgresql').sort().reverse();
  const backup = `/usr/lib/postgresql/${version}/bin/pg_basebackup`;
  if (process.getuid?.() === 0) run(['chown', 'postgres:', data('b')]);
  const source = ['-h', '127.0.0.1', '-p', `${primary.port}`, '-U', 'postgres'];
  run([
    'sh',
    join(SCRIPTS, 'as-user.sh'),
    'postgres',
    backup,
    ...source,
    '-R',
    '-D',
    join(data('b'), 'cluster'),
  ]);
  serve(standby);
  // As without nodes: an address that is no node is taken as it is.
  await untilTrue('the standby answers', () =>
    postgres
      .connect(localAddress(standby.port))
      .then((one) => one.close())
      .then(
        () => true,
        () => false,
      ),
  );
  t.notOk(await postgres.ready(standby, 1000));
  await t.rejects(postgres.connect(standby), {
    code: 'target-unavailable',
    message: /^node b .*a standby takes no messages/,
  });
  t.match(await submit(postgres, localAddress(standby.port), '0'), { outcome: 'rejected', detail: /25006/ });
  t.match(await submit(postgres, primary, '1'), { outcome: 'confirmed' });
  const receipts = new ReceiptList();
  const receiver = await postgres.receive([standby, primary], { run: RUN, receipts });
  t.teardown(() => receiver.close());
  await receipts.waitFor('consumed', 1);
  t.match(receipts.ofKind('delivered'), [{ id: '1', node: 'a' }]);
});

t.test(
  'amqp-stream: the receiver goes on after a break, and reads again what it did not accept',
  skipWithout('/usr/lib/rabbitmq/bin/rabbitmq-server'),
  async (t) => {
    const stream = await protocolOf('amqp-stream');
    const dir = tempDir(t);
    const script = join(SCRIPTS, 'rabbitmq.sh');
    // The install syncs the stream: RabbitMQ itself does not, and a kill may then end a new stream.
    t.equal(spawnSync('sh', [script, 'install', dir, 'stream']).status, 0);
    const address = await nodeAddress('a');
    const [names, dist] = [await freePort(), await freePort()];
    const command = ['sh', script, 'serve', dir, `${address.port}`, `${names}`, `${dist}`, 'stream'];
    // Otherwise the broker starts epmd as a daemon, which would survive the test.
    RealNode.start(t, ['epmd', '-port', `${names}`]);
    let server = RealNode.start(t, command);
    await untilTrue('ready', () => stream.ready(address, 1000));
    const ids = ['1', '2', '3', '4', '5'];
    for (const id of ids) t.match(await submit(stream, address, id), { outcome: 'confirmed' });
    const receipts = new ReceiptList();
    const replyFor = (id: string | null, delivery: number): DeliveryReply => ({
      answer: id === '3' && delivery === 1 ? 'later' : 'accept',
      delayMs: 0,
    });
    // Two addresses, as in a cluster: only one of them is read at a time.
    const receiver = await stream.receive([address, { ...address, node: 'b' }], {
      run: RUN,
      receipts,
      replyFor,
    });
    t.teardown(() => receiver.close());
    await receipts.waitFor('consumed', 5);
    const seen = () => receipts.ofKind('delivered').map(({ id }) => id);
    t.equal(seen().filter((id) => id === '3').length, 2, 'the message that was refused came again');

    await server.kill();
    server = RealNode.start(t, command);
    await untilTrue('ready again', () => stream.ready(address, 1000));
    t.match(await submit(stream, address, '6'), { outcome: 'confirmed' });
    await receipts.waitFor('consumed', 6);
    const consumed = receipts.ofKind('consumed').map(({ sequence }) => sequence);
    const delivered = receipts.ofKind('delivered').filter(({ sequence }) => consumed.includes(sequence));
    t.same(delivered.map(({ id }) => id).sort(), [...ids, '6'], 'each was consumed once');
  },
);
