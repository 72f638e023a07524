import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import { installed, opened, put, temporaryDirectory } from '../fixtures/queue.js';
import { runServer } from '../fixtures/server.js';
import { listSegments, segmentPath } from '../log/segment-ring.js';
import { pathsOf } from '../settings.js';

const PROGRAM = fileURLToPath(new URL('../main.js', import.meta.url));

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

function run(args: readonly string[], input = ''): Promise<Ended> {
  const child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
  const ended: Ended = { code: null, stdout: '', stderr: '' };
  child.stdout.on('data', (text) => {
    ended.stdout += text;
  });
  child.stderr.on('data', (text) => {
    ended.stderr += text;
  });
  child.stdin.on('error', () => undefined).end(input);
  return new Promise((resolve) => child.on('close', (code) => resolve({ ...ended, code })));
}

t.test('every wrong call prints one line to stderr and nothing to stdout, and exits with 2', async (t) => {
  const directory = await installed(t);
  const none = join(temporaryDirectory(t), 'none');
  const file = join(temporaryDirectory(t), 'file');
  writeFileSync(file, 'x');
  const odd = join(temporaryDirectory(t), 'odd');
  mkdirSync(odd);
  writeFileSync(join(odd, 'settings.json'), '{"version":1}');
  const later = join(temporaryDirectory(t), 'later');
  mkdirSync(later);
  writeFileSync(join(later, 'settings.json'), '{"version":9}');
  const cases: [string[], RegExp][] = [
    [['nonsense'], /unknown command 'nonsense'/],
    [['serve'], /--queue <directory>' not specified/],
    [['verify', '--queue', none], /found no queue, expected one that install has made/],
    [['inspect', '--queue', file], /ENOTDIR|found no queue/],
    [['verify', '--queue', odd], /expected the settings that install has written/],
    [['serve', '--queue', later], /found version 9, expected 1/],
    [['install', '--queue', directory], /found a queue, expected an empty or missing directory/],
    [['install', '--queue', none, '--segment-bytes', '5000'], /multiple of 4KiB/],
    [['install', '--queue', none, '--segments', '3'], /from 4 to 1024/],
    [['install', '--queue', none, '--queues', '0'], /from 1 to 64/],
    [['serve', '--queue', directory, '--port', '65536'], /from 0 to 65535/],
    [['serve', '--queue', directory, '--checkpoint', '1ms'], /from 10ms to 1h/],
    [['serve', '--queue', directory, '--memory', '0'], /from 1 byte to 1TiB/],
    [['serve', '--queue', directory, '--lease', 'soon'], /such as 500ms or 5s/],
    [['verify', '--queue', directory, 'more'], /too many arguments/],
  ];
  await Promise.all(
    cases.map(async ([args, expected]) => {
      const { code, stdout, stderr } = await run(args);
      t.match(stderr, expected, args.join(' '));
      t.match(stderr, /^[^\n]+\n$/, 'stderr has one line');
      t.equal(code, 2, args.join(' '));
      t.equal(stdout, '');
    }),
  );
  const { code, stderr } = await run(['restore-check', '--stdin'], 'nonsense\n');
  t.match({ code, stderr }, { code: 2, stderr: /^[^\n]*expected \{"queue": DIR\}\n$/ });
});

t.test('a second server, a taken port and a running server are told in one line', async (t) => {
  const directory = await installed(t);
  const server = await runServer(t, directory);
  const [second, rebuild, verify] = await Promise.all([
    run(['serve', '--queue', directory]),
    run(['rebuild', '--queue', directory, '--from-nothing']),
    run(['verify', '--queue', directory]),
  ]);
  for (const { code, stderr } of [second, rebuild])
    t.match({ code, stderr }, { code: 2, stderr: /^[^\n]*is in use[^\n]*\n$/ });
  t.match(JSON.parse(verify.stdout), { ok: true, live: 0, keptAside: 0 });
  const other = await installed(t);
  const taken = await run(['serve', '--queue', other, '--port', `${server.port}`]);
  t.match(taken.stderr, /^[^\n]*EADDRINUSE[^\n]*\n$|^[^\n]*in use[^\n]*\n$/);
  t.not(taken.code, 0);
  t.equal(await server.stop(), 0, 'a stop signal ends the server in order');
});

t.test('verify, inspect and rebuild say what is stored and what is damaged', async (t) => {
  const directory = await installed(t);
  const queue = await opened(t, directory);
  for (const id of ['a', 'b', 'c']) await put(queue, id, 50, 'q0');
  await queue.close();
  const lines = (await run(['inspect', '--queue', directory])).stdout.trim().split('\n');
  t.match(JSON.parse(lines[0] ?? ''), { queues: 2, damaged: 0 });
  t.equal(lines.length, 1 + 2 + 3);
  t.equal((await run(['inspect', '--queue', directory, '--summary'])).stdout.trim().split('\n').length, 3);
  t.match(JSON.parse((await run(['rebuild', '--queue', directory, '--from-nothing'])).stdout), {
    messages: 3,
  });
  const checked = await run(['restore-check', '--stdin'], `${JSON.stringify({ queue: directory })}\n`);
  t.match(JSON.parse(checked.stdout), { live: [0, 1, 2], problems: [], keptAside: 0 });
  const again = await opened(t, directory);
  for (const id of ['d', 'e']) await put(again, id, 50, 'q0');
  const { log } = pathsOf(directory);
  const path = listSegments(log, linux)
    .map((sequence) => segmentPath(log, sequence))
    .find((one) => readFileSync(one).includes('dddddd'));
  const bytes = readFileSync(path ?? '');
  // A line break in the id: the damaged id is named in one line.
  bytes[bytes.indexOf('dddddd')] = 10;
  writeFileSync(path ?? '', bytes);
  const { code, stdout } = await run(['verify', '--queue', directory]);
  t.equal(code, 1);
  t.match(JSON.parse(stdout), { ok: false, live: 4, problems: [/message "\\n" of queue 1, damaged/] });
});
