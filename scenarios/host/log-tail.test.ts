import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { readLogTail } from './log-tail.js';

const LIMITS = { maxLines: 2, maxLineChars: 10 };

t.test('the tail of a log has its last lines, and none of what a target puts in its place', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-log-tail-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  const [log, link, fifo] = ['log', 'link', 'fifo'].map((name) => join(dir, name)) as [
    string,
    string,
    string,
  ];
  writeFileSync(log, 'first\nsecond\n\n\u001b[31mthird line that is long\u001b[0m\n');
  symlinkSync(log, link);
  execFileSync('mkfifo', [fifo]);
  t.same(readLogTail(log, LIMITS), ['second', 'third line']);
  t.same(readLogTail(link, LIMITS), []);
  t.same(readLogTail(fifo, LIMITS), []);
  t.same(readLogTail(join(dir, 'none'), LIMITS), []);
});
