import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { TestWorkspace } from '../fixtures/kit.js';
import { appendToLog, BoundedLog } from './bounded-log.js';
import { readLogTail } from './log-tail.js';

const KIB = 1024;
process.env.PLUGPULL_LIMITS = `log-head-bytes=${8 * KIB},log-tail-bytes=${16 * KIB},log-bytes=${80 * KIB}`;

function newLog(t: { teardown(remove: () => void): void }): string {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  return join(place.dir, 'server.log');
}

/** A process that writes numbered lines of 16 bytes to its output, as many as it is asked for. */
class Writer {
  readonly #child;
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
    const log = openSync(path, 'a');
    const program = 'while read -r from to; do seq -f "line %010.0f" "$from" "$to"; done';
    this.#child = spawn('sh', ['-c', program], { stdio: ['pipe', log, log] });
    closeSync(log);
  }

  /** Resolves when the lines are in the file. */
  async write(from: number, to: number): Promise<void> {
    const size = statSync(this.#path).size + (to - from + 1) * 16;
    this.#child.stdin?.write(`${from} ${to}\n`);
    while (statSync(this.#path).size < size) await new Promise((resolve) => setImmediate(resolve));
  }

  async end(): Promise<void> {
    this.#child.stdin?.end();
    await once(this.#child, 'exit');
  }
}

t.test('the middle of a log is dropped while a process writes it, and head and tail stay', async (t) => {
  const path = newLog(t);
  const log = new BoundedLog(path);
  log.begin();
  const writer = new Writer(path);
  for (let from = 1; from < 100_000; from += 10_000) {
    await writer.write(from, from + 9_999);
    log.check();
    t.match(readLogTail(path, { maxLines: 1, maxLineChars: 80 }), [
      `line ${String(from + 9_999).padStart(10, '0')}`,
    ]);
  }
  const { size, blocks } = statSync(path);
  t.equal(size, 1_600_000, 'no byte has moved');
  t.ok(blocks * 512 <= 40 * KIB, `${blocks * 512} bytes on the disk`);
  await writer.end();
  log.compact();
  const lines = readFileSync(path, 'latin1').split('\n');
  t.equal(lines[0], 'line 0000000001');
  t.equal(lines.at(-2), 'line 0000100000');
  t.ok(statSync(path).size < 40 * KIB);
  const [note, ...others] = lines.filter((line) => line.startsWith('[plugpull'));
  const dropped = Number(/^\[plugpull: (\d+) bytes of this log were dropped here\]$/.exec(note ?? '')?.[1]);
  t.same(others, []);
  t.equal(
    dropped + lines.filter((line) => line !== note).join('\n').length - 1,
    1_600_000,
    'nothing else is missing',
  );
});

t.test('each start keeps its head and its tail, and all together keep a bounded part', async (t) => {
  const path = newLog(t);
  const log = new BoundedLog(path);
  for (let start = 1; start <= 20; start++) {
    log.begin();
    const writer = new Writer(path);
    await writer.write(start * 100_000, start * 100_000 + 9_999);
    log.check();
    await writer.end();
  }
  log.compact();
  const text = readFileSync(path, 'latin1');
  t.ok(text.startsWith('line 0000100000\n'), 'the start of the first one');
  t.match(text, /line 0002000000\n/, 'the start of the last one');
  t.ok(text.endsWith('line 0002009999\n'), 'its end');
  t.notMatch(text, /line 0000500000\n/, 'one between them is dropped');
  t.ok(text.length < 130 * KIB, `${text.length} bytes`);
});

t.test('a short log stays as it is', async (t) => {
  const path = newLog(t);
  writeFileSync(path, 'earlier\n');
  const log = new BoundedLog(path);
  log.begin();
  const writer = new Writer(path);
  await writer.write(1, 1);
  log.check();
  await writer.end();
  log.compact();
  t.equal(readFileSync(path, 'latin1'), 'earlier\nline 0000000001\n');
});

t.test('the log of a command that runs often is bounded', async (t) => {
  const path = newLog(t);
  for (let run = 1; run <= 50; run++) appendToLog(path, `run ${run}\n${'x'.repeat(4 * KIB)}\n`);
  const text = readFileSync(path, 'latin1');
  t.ok(text.startsWith('run 1\n'));
  t.match(text, /bytes of this log were dropped here/);
  t.match(text, /run 50\n/);
  t.ok(text.length < 90 * KIB, `${text.length} bytes`);
});
