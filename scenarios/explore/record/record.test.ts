import { join } from 'node:path';
import t from 'tap';
import { Recorder } from '../../../conformance/history/recorder.js';
import { recordReceipts } from '../../../conformance/protocols/receipts.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { seeded } from '../../host/random.js';
import type { ChangedDelivery } from '../../round/changed-messages.js';
import { planSubmission } from '../../round/workload/messages.js';
import { LogPositionLedger } from './record.js';

t.test(
  'the ledger of a recorded run makes the bytes of a message again, and does not keep them',
  async (t) => {
    const workspace = new TestWorkspace();
    const recorder = new Recorder(join(workspace.dir, 'history.jsonl'));
    t.teardown(() => {
      recorder.close();
      workspace.remove();
    });
    const ledger = new LogPositionLedger('run', recorder, () => 0);
    const changes: ChangedDelivery[] = [];
    ledger.onChanged = (change) => void changes.push(change);
    const place = { run: 'run', id: '1-1-1', envelope: true, floodBytes: 0 };
    const { message } = planSubmission(place, seeded(1));
    const again = Buffer.from(message.bytes);
    let composed = 0;
    ledger.submitted(message, 1, () => {
      composed++;
      return again;
    });
    t.equal(composed, 0);
    const bytes = Buffer.concat([message.bytes.subarray(0, -2), Buffer.from('!\r\n')]);
    const receipts = ledger.trackReceipts(recordReceipts(recorder));
    receipts.delivered({ id: '1-1-1', sizeBytes: 1, digest: 'another', recipients: [0], bytes });
    t.equal(composed, 1);
    t.equal(changes[0]?.submitted, again);
    t.ok(ledger.digests.has('1-1-1'));
  },
);
