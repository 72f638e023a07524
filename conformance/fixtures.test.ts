import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type Evaluation, evaluate } from './checkers/evaluate.js';
import { seeded } from './fixtures/random.js';
import { TargetProcess } from './fixtures/target-process.js';
import { HISTORY_FORMAT, type HistoryEvent } from './history/events.js';
import { Recorder } from './history/recorder.js';
import { localAddress } from './protocols/address.js';
import { compose } from './protocols/message.js';
import { recordReceipts } from './protocols/receipts.js';
import { protocolOf } from './protocols/registry/registry.js';

const MESSAGES = 24;
/**
 * Time after which the wait for deliveries ends if no event was recorded. It is longer than a lease of the
 * fixtures (150 ms here).
 */
const SILENCE_MS = 500;

/**
 * Makes one run against a fixture queue: submits, a kill with messages at risk, a recovery, consumption of all
 * messages.
 */
async function runAgainst(name: string): Promise<Evaluation> {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-fixture-'));
  const recorder = new Recorder(join(dir, 'history.jsonl'));
  const process = await TargetProcess.make(name, dir, ['--lease-ms', '150']);
  const protocol = await protocolOf(process.target.protocol);
  try {
    await process.start();
    const started = {
      target: name,
      protocol: protocol.name,
      seed: 1,
      faults: ['kill'],
      startedAt: '',
      kitVersion: '0',
    };
    recorder.record({ kind: 'run-started', format: HISTORY_FORMAT, ...started });
    const submitAll = async (from: number, to: number) => {
      const producer = await protocol.connect(localAddress(process.port));
      for (let n = from; n < to; n += 1) {
        const message = compose({ run: 'run-1', id: `${n}`, shape: 'text', sizeBytes: 100 + n }, seeded(n));
        const { id, digest, shape, recipients } = message;
        const sizeBytes = message.bytes.length;
        recorder.record({
          kind: 'submitted',
          id,
          producer: 0,
          sizeBytes,
          digest,
          recipients: recipients.length,
          shape,
        });
        recorder.record({ kind: 'answered', id, ...(await producer.submit(message)) });
      }
      await producer.close();
    };
    const consumeAll = async () => {
      const receiver = await protocol.receive([localAddress(process.port)], {
        run: 'run-1',
        receipts: recordReceipts(recorder),
        inOrder: process.target.guarantee.order !== undefined,
      });
      await silence(recorder.events);
      await receiver.close();
    };
    await submitAll(0, MESSAGES / 2);
    await consumeAll();
    await submitAll(MESSAGES / 2, MESSAGES);
    recorder.record({
      kind: 'at-risk',
      injection: 1,
      confirmedUndelivered: MESSAGES / 2,
      inFlight: 0,
      inDelivery: 0,
    });
    await process.kill();
    const what = {
      fault: 'kill',
      injection: 1,
      hit: true,
      services: ['server'],
      detail: '',
      indexDamaged: false,
    };
    recorder.record({ kind: 'fault', ...what, scope: 'all-processes', rotted: [], failingMs: 0 });
    const before = recorder.nowMs();
    if (await process.start(20))
      recorder.record({ kind: 'recovered', injection: 1, tookMs: recorder.nowMs() - before });
    else
      recorder.record({
        kind: 'recovery-failed',
        injection: 1,
        waitedMs: recorder.nowMs() - before,
        detail: 'not ready',
      });
    await consumeAll();
    recorder.record({ kind: 'drained', waitedMs: SILENCE_MS, complete: true });
    return evaluate(recorder.events, process.target);
  } finally {
    await process.kill();
    recorder.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Resolves when no event was recorded for SILENCE_MS. */
async function silence(events: readonly HistoryEvent[]): Promise<void> {
  let seen = events.length;
  for (let silentMs = 0; silentMs < SILENCE_MS; silentMs += 50) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    if (events.length > seen) silentMs = 0;
    seen = events.length;
  }
}

t.test('a correct queue passes', async (t) => {
  const { verdict, why, findings } = await runAgainst('correct');
  t.equal(verdict, 'pass', why);
  t.match(findings[0]?.figures, { confirmed: MESSAGES, lost: 0 });
});

t.test('a correct queue that claims an order passes', async (t) => {
  const { verdict, why, findings } = await runAgainst('ordered');
  t.equal(verdict, 'pass', why);
  const order = findings.find(({ requirement }) => requirement === 'PP-20');
  t.match(order, {
    verdict: 'pass',
    figures: { outOfOrder: 0, compared: MESSAGES, waiting: MESSAGES / 2 - 1 },
  });
});

const WRONG: [string, string][] = [
  ['confirms-early', 'PP-1'],
  ['delivers-twice', 'PP-2'],
  ['resurrects', 'PP-2'],
  ['rejects-and-keeps', 'PP-3'],
  ['corrupts', 'PP-4'],
  ['invents', 'PP-6'],
  ['never-recovers', 'PP-10'],
  ['reorders', 'PP-20'],
];

for (const [name, requirement] of WRONG) {
  t.test(`a queue that ${name.replaceAll('-', ' ')} fails ${requirement} and nothing else`, async (t) => {
    const { verdict, findings } = await runAgainst(name);
    t.equal(verdict, 'fail');
    t.same(
      findings.flatMap((found) => (found.verdict === 'fail' ? [found.requirement] : [])),
      [requirement],
    );
  });
}

t.test('a queue that never confirms is not measured', async (t) => {
  const { verdict, why } = await runAgainst('never-confirms');
  t.equal(verdict, 'not-measured');
  t.match(why, /nothing was confirmed/);
});
