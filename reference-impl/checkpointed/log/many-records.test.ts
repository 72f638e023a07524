import { join } from 'node:path';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import { Log, type StagedOperation } from './log.js';
import { OPERATION } from './record.js';
import { scanLog } from './scan.js';
import { SegmentRing } from './segment-ring.js';

const KEY = { low: 1, high: 2 };
const SEGMENT_BYTES = 16 * 2 ** 20;
/** More than a call can have arguments, with the default stack of Node. */
const RECORDS = 200_000;
const NOTHING = Buffer.alloc(0);

t.test('a log with very many records is read', async (t) => {
  const directory = join(t.testdir({ log: {} }), 'log');
  const ring = new SegmentRing(directory, SEGMENT_BYTES, [], linux);
  const geometry = { directory, segmentBytes: SEGMENT_BYTES, segments: 4, key: KEY };
  const log = new Log(geometry, ring, { generation: 1, position: 0 }, linux);
  const consume: StagedOperation = {
    operation: OPERATION.consume,
    queue: 1,
    number: 8,
    id: '',
    idBytes: 0,
    body: NOTHING,
    position: 0,
  };
  await log.append(Array.from({ length: RECORDS }, () => [consume]));
  log.close();
  const scanned = scanLog({ directory, segmentBytes: SEGMENT_BYTES, key: KEY, from: 0 }, linux);
  t.equal(scanned.records.length, RECORDS);
  t.equal(scanned.damaged.length, 0);
});
