import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { KitError } from '../errors.js';
import { HistoryBuilder } from '../fixtures/history-builder.js';
import { recordReceipts } from '../protocols/receipts.js';
import type { HistoryEvent } from './events.js';
import { readHistory } from './reader.js';
import { Recorder } from './recorder.js';
import { tracesOf } from './traces.js';

const dir = mkdtempSync(join(tmpdir(), 'plugpull-history-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
let files = 0;
const newFile = () => join(dir, `${files++}.jsonl`);

const LOST_FILE = {
  file: 'a.log',
  sizeBytes: 9,
  sizeAfterBytes: null,
  nameAfter: null,
  cacheBytes: 9,
  driveBytes: 0,
  messages: ['2'],
};
const FAILED = { sinceMs: 5, calls: [{ service: 's', call: 'fsync', path: null, error: 'EIO', count: 1 }] };

/** Makes a history with an event of almost every kind. */
function everything(): HistoryEvent[] {
  const story = new HistoryBuilder()
    .start('kill')
    .append({ kind: 'service-started', service: 's', incarnation: 1 })
    .submitAndConsume('1')
    .submit('2')
    .crash({ lostFiles: [LOST_FILE], failed: FAILED })
    .append({
      kind: 'service-exited',
      service: 's',
      incarnation: 1,
      code: null,
      signal: 'SIGKILL',
      expected: true,
    })
    .append({ kind: 'healed', fault: 'kill', injection: 1 })
    .deliver(null)
    .refuse(false)
    .settle('broken')
    .failRecovery()
    .inspect(false, { problems: ['p'] })
    .drain()
    .append({ kind: 'run-ended', how: 'completed' });
  return story.events;
}

function failure(act: () => unknown): KitError {
  try {
    act();
  } catch (error) {
    if (error instanceof KitError) return error;
    throw error;
  }
  throw new Error('expected a KitError');
}

t.test('recorded events are read back in order, with non-decreasing times', async (t) => {
  const file = newFile();
  const recorder = new Recorder(file);
  for (const { atMs: _, ...event } of everything()) recorder.record(event);
  recorder.close();
  recorder.close();
  const read = readHistory(file);
  t.same(read, recorder.events);
  t.same(
    read.map(({ atMs: _, ...event }) => event),
    everything().map(({ atMs: _, ...event }) => event),
  );
  t.ok(read.every(({ atMs }, n) => n === 0 || atMs >= (read[n - 1]?.atMs ?? 0)));
});

t.test('recorded events reach the file after a bounded delay, without a flush or close', async (t) => {
  const file = newFile();
  const recorder = new Recorder(file);
  recorder.record({ kind: 'healed', fault: 'pause', injection: 1 });
  while (readFileSync(file).length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  t.equal(readHistory(file).length, 1);
  recorder.close();
});

t.test('large amounts are written before the delay has passed, and completely', async (t) => {
  const file = newFile();
  const recorder = new Recorder(file);
  for (let n = 0; n < 5000; n += 1)
    recorder.record({ kind: 'recovery-failed', injection: n, waitedMs: 1, detail: 'ä'.repeat(100) });
  t.ok(readFileSync(file).length > 500_000, 'written before the delay has passed');
  recorder.close();
  t.equal(readHistory(file).length, 5000);
});

t.test(
  'a kit that exits without a close loses nothing, and a killed kit loses at most the last write delay',
  async (t) => {
    const recorderModule = new URL('./recorder.js', import.meta.url).href;
    const program = (file: string, end: string) => `
    import { Recorder } from ${JSON.stringify(recorderModule)};
    const recorder = new Recorder(${JSON.stringify(file)});
    const event = { kind: 'healed', fault: 'pause', injection: 1 };
    recorder.record(event);
    ${end}`;
    const exiting = newFile();
    await once(
      spawn(process.execPath, ['--input-type=module', '-e', program(exiting, 'process.exit(0)')]),
      'exit',
    );
    t.equal(readHistory(exiting).length, 1);
    const killed = newFile();
    const end = `setTimeout(() => { console.log('later'); setInterval(() => {}, 1000); }, 200);`;
    const child = spawn(process.execPath, ['--input-type=module', '-e', program(killed, end)]);
    await once(child.stdout, 'data');
    child.kill('SIGKILL');
    await once(child, 'exit');
    t.equal(readHistory(killed).length, 1);
  },
);

t.test('a recorder that cannot create its file, or records after its close, throws kit-failed', async (t) => {
  const file = newFile();
  const recorder = new Recorder(file);
  recorder.close();
  t.match(
    failure(() => new Recorder(file)),
    { code: 'kit-failed', exitCode: 4, message: /cannot create the history: EEXIST/ },
  );
  t.match(
    failure(() => recorder.record({ kind: 'healed', fault: 'x', injection: 1 })).message,
    /recorded after the end/,
  );
});

t.test('the error for a damaged line names file and line, and means exit code 2', async (t) => {
  const good = everything().map((event) => JSON.stringify(event));
  const cases: [string, RegExp][] = [
    ['{"kind":"healed","atMs":1,"fault":"x"', /expected JSON/],
    ['[]', /kind: expected one of run-started, /],
    ['null', /kind: expected one of/],
    ['{"kind":"toString","atMs":1}', /kind: expected one of/],
    ['{"kind":"healed","fault":"x","injection":1}', /atMs: wrong or missing in an event 'healed'/],
    ['{"kind":"answered","atMs":1,"id":"1","outcome":"maybe","detail":""}', /outcome: wrong or missing/],
    ['{"kind":"settled","atMs":1,"sequences":["1"],"how":"known"}', /sequences: wrong or missing/],
    ['{"kind":"healed","atMs":1,"fault":"x","injection":1,"more":2}', /more: unknown key/],
  ];
  for (const [line, expected] of cases) {
    const file = newFile();
    writeFileSync(file, `${[...good, line, ...good].join('\n')}\n`);
    const error = failure(() => readHistory(file));
    t.match(error, { code: 'bad-history', exitCode: 2, message: expected }, line);
    t.ok(error.message.startsWith(`${file}:${good.length + 1}: `), 'file and line');
  }
});

t.test('the error for a truncated or missing history names the file', async (t) => {
  const file = newFile();
  writeFileSync(file, '{"kind":"healed","atMs":1,"fault":"x","injection":1}\n');
  appendFileSync(file, '{"kind":');
  t.match(failure(() => readHistory(file)).message, /:2: expected a whole line, the file ends within it/);
  t.match(failure(() => readHistory(join(dir, 'none'))).message, /none: expected a history: ENOENT/);
});

t.test('receipts are numbered in order of arrival and recorded', async (t) => {
  const recorder = new Recorder(newFile());
  const receipts = recordReceipts(recorder);
  const what = { sizeBytes: 1, digest: 'd', recipients: [0] };
  t.same([receipts.delivered({ id: '1', ...what }), receipts.delivered({ id: null, ...what })], [1, 2]);
  receipts.consumed(1, '1', 'accepted');
  receipts.refused(2, null, true, 'never');
  receipts.settled([1], 'known');
  recorder.close();
  t.same(
    recorder.events.map(({ kind }) => kind),
    ['delivered', 'delivered', 'consumed', 'refused', 'settled'],
  );
});

t.test('traces include events that were added after an earlier call', async (t) => {
  const { events } = new HistoryBuilder().submitAndConsume('1');
  t.equal(tracesOf(events).byId.size, 1);
  t.equal(tracesOf(events), tracesOf(events), 'computed once for the same history');
  events.push(...new HistoryBuilder().submit('2').events);
  t.equal(tracesOf(events).byId.size, 2);
  const stray = new HistoryBuilder().consume().settle('known', 77);
  t.equal(tracesOf(stray.events).deliveries, 0, 'a consumption without a delivery is ignored');
});
