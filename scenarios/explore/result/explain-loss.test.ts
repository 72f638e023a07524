import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { openRecording } from '../../../faults/crash-states/materialise.js';
import { type NewEntry, WriteLogWriter } from '../../../faults/write-log/writer.js';
import { explainLoss } from './explain-loss.js';

const PAGE_BYTES = 4096;
const MARK = Buffer.from('run=20261126 id=1-0-0 sha256=');
/**
 * Offset of the message. The mark crosses the end of the first page, so the first write has only a part of
 * it.
 */
const START = PAGE_BYTES - 20;

/** Makes two pages with one message across them. */
function pages(): [Buffer, Buffer] {
  const both = Buffer.alloc(2 * PAGE_BYTES, '.');
  MARK.copy(both, START);
  return [both.subarray(0, PAGE_BYTES), both.subarray(PAGE_BYTES)];
}

/** Writes a log with the given entries and explains the loss of the message. */
function explain(
  t: { teardown(end: () => void): void },
  entries: readonly NewEntry[],
  confirmedAt: number,
  ownersOf?: () => ReadonlyMap<number, string>,
): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-explain-'));
  const log = new WriteLogWriter(join(dir, 'log'));
  for (const entry of entries) log.add(entry);
  log.close();
  const recording = openRecording(join(dir, 'log'));
  t.teardown(() => {
    recording.close();
    rmSync(dir, { recursive: true, force: true });
  });
  return explainLoss(recording, MARK, 500, confirmedAt, ownersOf).lines.join('\n');
}

const [first, second] = pages();

t.test('a message whose mark crosses two writes is found, and the later write is named', async (t) => {
  const entries = [
    { offset: 0, data: first },
    { flush: true },
    { offset: PAGE_BYTES, data: second },
    { flush: true },
  ];
  const text = explain(t, entries, 2);
  t.match(text, /^its 500 bytes were written by entries 0,2$/m);
  t.match(text, /^entry 2 was written only after the confirmation/m);
});

t.test('a part of a mark without the rest does not count as the message', async (t) => {
  const text = explain(
    t,
    [
      { offset: 0, data: first },
      { offset: 5 * PAGE_BYTES, data: second },
    ],
    2,
  );
  t.match(text, /its bytes are in no write of the log/);
});

t.test('the first flush after a write is named when it comes after the confirmation', async (t) => {
  const entries = [{ offset: 0, data: first }, { offset: PAGE_BYTES, data: second }, { flush: true }];
  t.match(explain(t, entries, 2), /^the first flush after entry \d is entry 2: the sync came too late$/m);
  t.match(explain(t, entries.slice(0, 2), 2), /^no flush came after entry \d: the sync is missing$/m);
});

t.test('when the bytes were flushed in time, the explanation names what leads to them', async (t) => {
  const entries = [{ offset: 0, data: Buffer.concat([first, second]) }, { flush: true }, { flush: true }];
  const text = explain(t, entries, 2);
  t.match(text, /what leads to them had not/);
  t.match(text, /^the first flush after the confirmation is entry 2$/m);
});

t.test(
  'a message that is stored as base64 in JSON is found, and the files of its writes are named',
  async (t) => {
    for (const front of ['', 'a', 'ab']) {
      const text = JSON.stringify({
        b: Buffer.concat([Buffer.from(front), MARK, Buffer.alloc(50, 'x')]).toString('base64'),
      });
      const entries = [{ offset: 0, data: Buffer.from(text.padEnd(PAGE_BYTES, '.')) }, { flush: true }];
      const named = explain(t, entries, 2, () => new Map([[0, 'seg-5.log']]));
      t.match(named, /^its 500 bytes were written to seg-5.log by entries 0, as base64$/m);
    }
  },
);

t.test('a message in base64 whose mark crosses two writes is found', async (t) => {
  const text = `${'.'.repeat(PAGE_BYTES - 25)}${MARK.toString('base64')}`.padEnd(2 * PAGE_BYTES, '.');
  const both = Buffer.from(text);
  const entries = [
    { offset: PAGE_BYTES, data: both.subarray(PAGE_BYTES) },
    { offset: 0, data: both.subarray(0, PAGE_BYTES) },
    { flush: true },
  ];
  t.match(explain(t, entries, 3), /were written by entries .*, as base64/);
});
