import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { openRecording } from '../../../faults/crash-states/materialise.js';
import { type NewEntry, WriteLogWriter } from '../../../faults/write-log/writer.js';
import { explainLoss } from './explain-loss.js';

const PAGE_BYTES = 4096;
const MARK = Buffer.from('run=20261126 id=1-0-0 sha256=');
/** Where the message begins: what comes of its mark before the end of the page is the first write's. */
const START = PAGE_BYTES - 20;

/** Two pages with a message across them, each as one entry or both as one. */
function pages(): [Buffer, Buffer] {
  const both = Buffer.alloc(2 * PAGE_BYTES, '.');
  MARK.copy(both, START);
  return [both.subarray(0, PAGE_BYTES), both.subarray(PAGE_BYTES)];
}

function blamed(
  t: { teardown(end: () => void): void },
  entries: readonly NewEntry[],
  confirmedAt: number,
): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-blame-'));
  const log = new WriteLogWriter(join(dir, 'log'));
  for (const entry of entries) log.add(entry);
  log.close();
  const recording = openRecording(join(dir, 'log'));
  t.teardown(() => {
    recording.close();
    rmSync(dir, { recursive: true, force: true });
  });
  return explainLoss(recording, MARK, 500, confirmedAt).join('\n');
}

const [first, second] = pages();

t.test('a message whose mark lies across two writes is found, and the later of them blamed', async (t) => {
  const entries = [
    { offset: 0, data: first },
    { flush: true },
    { offset: PAGE_BYTES, data: second },
    { flush: true },
  ];
  const said = blamed(t, entries, 2);
  t.match(said, /^its 500 bytes were written by entries 0,2$/m);
  t.match(said, /^entry 2 was written only after the confirmation/m);
});

t.test('half a mark without its other half is no message', async (t) => {
  const said = blamed(
    t,
    [
      { offset: 0, data: first },
      { offset: 5 * PAGE_BYTES, data: second },
    ],
    2,
  );
  t.match(said, /its bytes are in no write of the log/);
});

t.test('a flush that comes after the confirmation is named', async (t) => {
  const entries = [{ offset: 0, data: first }, { offset: PAGE_BYTES, data: second }, { flush: true }];
  t.match(blamed(t, entries, 2), /^the first flush after entry \d is entry 2: the sync came too late$/m);
  t.match(blamed(t, entries.slice(0, 2), 2), /^no flush came after entry \d: the sync is missing$/m);
});

t.test('where the bytes were flushed in time what leads to them is to blame', async (t) => {
  const entries = [{ offset: 0, data: Buffer.concat([first, second]) }, { flush: true }, { flush: true }];
  const said = blamed(t, entries, 2);
  t.match(said, /what leads to them had not/);
  t.match(said, /^the first flush after the confirmation is entry 2$/m);
});
