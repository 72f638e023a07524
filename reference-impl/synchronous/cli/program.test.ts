import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { runQueueCommand, Service, temporaryDirectory } from '../gateway/fixtures/processes.js';

const SMALL = ['--data-bytes', '1MiB', '--entries', '64'];

t.test('every wrong call prints one line to stderr and nothing to stdout, and exits with 2', async (t) => {
  const directory = temporaryDirectory(t);
  const queue = join(directory, 'queue');
  await runQueueCommand('install', '--queue', queue, ...SMALL);
  writeFileSync(join(directory, 'bad.json'), '{"smtp":{"port":"many"}}');
  const cases: [string[], RegExp][] = [
    [['nonsense'], /unknown command 'nonsense'/],
    [['inspect'], /no queue directory: give --queue DIR/],
    [['inspect', '--queue'], /option '--queue <directory>' argument missing/],
    [['inspect', '--queue', queue, '--smtp-porrt', '1'], /unknown option '--smtp-porrt'.*--smtp-port/],
    [['inspect', '--queue', queue, 'more'], /too many arguments/],
    [['inspect', '--queue', join(directory, 'none')], /queue\.json: not found, expected an installed queue/],
    [['install', '--queue', queue, ...SMALL], /is there already/],
    [['install', '--queue', join(directory, 'bad.json', 'queue')], /ENOTDIR/],
    [['worker', '--queue', queue], /delivery\.nextHop: it is missing, expected host:port/],
    [['worker', '--queue', queue, '--next-hop', 'x'], /--next-hop: found "x", expected host:port/],
    [
      ['worker', '--queue', queue, '--config', join(directory, 'bad.json')],
      /bad\.json: smtp\.port: found "many"/,
    ],
    [
      ['worker', '--queue', queue, '--entries', '65'],
      /--entries: found "65"|--entries: found 65, expected 64/,
    ],
    [['simulate', '--path', 'x'], /--path: expected numbers such as 12:0:3/],
    [['helper', '--queue', queue, '--pair', '1'], /--pair: found 1, expected less than 1/],
    [['helper', '--queue', queue, '--pair', 'x'], /--pair.*expected a whole number from 0 to 63/],
    [['gateway', '--queue', queue, '--next-hop', 'a:1', '--workers', '0'], /--workers.*from 1 to 64/],
    [
      ['gateway', '--queue', queue, '--next-hop', 'a:1', '--smtp-ports', '1'],
      /--smtp-ports: found 1 ports, expected 2/,
    ],
    [
      ['gateway', '--queue', queue, '--next-hop', 'a:1', '--smtp-ports', '1,x'],
      /--smtp-ports.*expected ports such as/,
    ],
  ];
  for (const [args, expected] of cases) {
    const { code, stdout, stderr } = await runQueueCommand(...args);
    t.match(stderr, expected, args.join(' '));
    t.match(stderr, /^plugpull queue: [^\n]+\n$/, 'stderr has one line');
    t.equal(code, 2);
    t.equal(stdout, '');
  }
});

t.test(
  'anything but a regular file in a queue is refused in one line, and no command waits for it',
  async (t) => {
    const directory = temporaryDirectory(t);
    const queue = join(directory, 'queue');
    await runQueueCommand('install', '--queue', queue, ...SMALL);
    const makers: [found: RegExp, make: (path: string) => void][] = [
      [/found a FIFO, expected a regular file/, (path) => void execFileSync('mkfifo', [path])],
      [/found a device, expected a regular file/, (path) => symlinkSync('/dev/zero', path)],
      [/found a directory, expected a regular file/, (path) => mkdirSync(path)],
    ];
    for (const file of ['queue.json', '0/queue.data', '0/queue.index', '0/queue.lock']) {
      const path = join(queue, file);
      for (const [found, make] of makers) {
        if (existsSync(path)) renameSync(path, `${path}.saved`);
        make(path);
        for (const command of ['verify', 'rebuild', 'inspect']) {
          const { code, stdout, stderr } = await runQueueCommand(command, '--queue', queue);
          t.match(stderr, found, `${command} ${file}`);
          t.match(stderr, /^plugpull queue: [^\n]+\n$/, 'stderr has one line');
          t.equal(code, 2);
          // Rebuild restores the dead letters before it ends with the error.
          if (command === 'rebuild' && file !== 'queue.json')
            t.match(JSON.parse(stdout).failed, [{ error: found }]);
          else t.equal(stdout, '');
        }
        rmSync(path, { recursive: true });
        if (existsSync(`${path}.saved`)) renameSync(`${path}.saved`, path);
      }
    }
  },
);

t.test('text of a stranger is printed so that no terminal and no CI system acts on it', async (t) => {
  const { stderr } = await runQueueCommand('verify', '--queue', '/none/\u001b]52;c;eA==\u0007\n::error::x');
  t.match(
    stderr,
    /^plugpull queue: \/none\/\\x1b\]52;c;eA==\\x07\\n::error::x\/queue\.json: not found[^\n]*\n$/,
  );
});

t.test('commands refuse a data file that is not one of a queue and do not change it', async (t) => {
  const directory = temporaryDirectory(t);
  const queue = join(directory, 'queue');
  await runQueueCommand('install', '--queue', queue, ...SMALL);
  const data = join(queue, '0', 'queue.data');
  const foreign = Buffer.alloc(2 ** 20, 'something else entirely');
  writeFileSync(data, foreign);
  for (const command of ['inspect', 'verify', 'rebuild', 'helper']) {
    const { code, stderr } = await runQueueCommand(command, '--queue', queue);
    t.equal(code, 2, command);
    t.match(stderr, /^plugpull queue: [^\n]*queue\.data[^\n]*\n$/, command);
  }
  t.ok(readFileSync(data).equals(foreign));
});

t.test('rebuild prints what it rebuilt, names the pair that it could not open, and fails', async (t) => {
  const queue = join(temporaryDirectory(t), 'queue');
  await runQueueCommand('install', '--queue', queue, ...SMALL);
  rmSync(join(queue, 'dead', 'queue.data'));
  rmSync(join(queue, '0', 'queue.index'));
  const { code, stdout, stderr } = await runQueueCommand('rebuild', '--queue', queue);
  t.equal(code, 2);
  t.match(JSON.parse(stdout), {
    pairs: [{ directory: join(queue, '0'), restored: 0 }],
    failed: [{ directory: join(queue, 'dead'), error: /queue\.data is not there/ }],
  });
  t.match(stderr, /^plugpull queue: [^\n]*dead\/queue\.data is not there[^\n]*\n$/);
  t.ok(existsSync(join(queue, '0', 'queue.index')));
});

t.test('install, verify, inspect and rebuild print JSON', async (t) => {
  const queue = join(temporaryDirectory(t), 'deep', 'queue');
  const calls = ['install', 'verify', 'inspect', 'rebuild'];
  for (const command of calls) {
    const { code, stdout, stderr } = await runQueueCommand(command, '--queue', queue, ...SMALL);
    t.equal(code, 0, command);
    t.equal(stderr, '');
    for (const line of stdout.trimEnd().split('\n')) t.type(JSON.parse(line), 'object', line);
  }
});

t.test('verify exits 1 when an invariant is broken', async (t) => {
  const queue = join(temporaryDirectory(t), 'queue');
  await runQueueCommand('install', '--queue', queue, ...SMALL);
  const index = join(queue, '0', 'queue.index');
  const bytes = readFileSync(index);
  // The heads of the lists follow the first page.
  bytes.fill(0x5a, 4096, 4196);
  writeFileSync(index, bytes);
  const { code, stdout } = await runQueueCommand('verify', '--queue', queue);
  t.equal(code, 1);
  t.equal(JSON.parse(stdout).ok, false);
  t.ok(JSON.parse(stdout).problems.length > 0);
});

t.test('a worker reports its port and exits with 0 on SIGTERM and SIGINT', async (t) => {
  const queue = join(temporaryDirectory(t), 'queue');
  await runQueueCommand('install', '--queue', queue, ...SMALL);
  const helper = Service.start(t, 'helper', '--queue', queue);
  await helper.waitForEvent(({ event, pair }) => event === 'ready' && pair === 0);
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const worker = Service.start(
      t,
      'worker',
      '--queue',
      queue,
      '--next-hop',
      '127.0.0.1:1',
      '--smtp-port',
      '0',
    );
    const { port } = await worker.waitForEvent(({ event }) => event === 'ready');
    t.ok(Number(port) > 0);
    process.kill(worker.pid, signal);
    t.equal(await worker.exited, 0, signal);
    t.equal(worker.stderr, '');
  }
  t.equal(await helper.stop(), 0);
});

t.test('a second helper on the same pair is refused', async (t) => {
  const queue = join(temporaryDirectory(t), 'queue');
  await runQueueCommand('install', '--queue', queue, ...SMALL);
  const helper = Service.start(t, 'helper', '--queue', queue);
  await helper.waitForEvent(({ event }) => event === 'ready');
  const { code, stderr } = await runQueueCommand('helper', '--queue', queue);
  t.equal(code, 2);
  t.match(stderr, /^plugpull queue: [^\n]*helper[^\n]*\n$/);
});

t.test('install saves its settings, and the other commands load them', async (t) => {
  const directory = temporaryDirectory(t);
  const queue = join(directory, 'queue');
  mkdirSync(join(directory, 'other-disk'));
  const pairs = `a=${join(directory, 'other-disk')},b`;
  await runQueueCommand(
    'install',
    '--queue',
    queue,
    ...SMALL,
    '--pairs',
    pairs,
    '--next-hop',
    'mail.example:25',
  );
  const kept = JSON.parse(readFileSync(join(queue, 'queue.json'), 'utf8'));
  t.match(kept, {
    pairs: [
      { directory: 'a', indexDirectory: join(directory, 'other-disk') },
      { directory: 'b', indexDirectory: 'b' },
    ],
    delivery: { nextHop: 'mail.example:25' },
  });
  const { stdout } = await runQueueCommand('verify', '--queue', queue);
  t.equal(JSON.parse(stdout).ok, true);
});

t.test('a simulation without time for a run reports that nothing was measured', async (t) => {
  const { code, stdout } = await runQueueCommand('simulate', '--budget', '1ms');
  t.equal(code, 3);
  t.match(stdout, /^not measured: .* 0 runs/);
});

t.test(
  'simulate reports a run that does not fail as not reproduced and refuses an unknown run',
  async (t) => {
    const again = await runQueueCommand('simulate', '--seed', '5', '--path', '3');
    t.equal(again.code, 0);
    t.match(again.stdout, /^not reproduced: the run 3 /);
    const none = await runQueueCommand('simulate', '--seed', '5', '--path', '999999:99:99');
    t.equal(none.code, 2);
    t.match(none.stderr, /^plugpull queue: --path: seed 5 has no run [^\n]*\n$/);
  },
);
