import { readFileSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import t from 'tap';
import { FIELD } from '../index/layout.js';
import { append } from '../index/lists.js';
import { RING_START } from '../record/data-file.js';
import { createHarness } from './fixtures/harness.js';
import { Pair } from './pair.js';
import { pairPaths } from './paths.js';

/** Kilobytes of the mapped data file that the kernel would still write: dirty pages of that mapping. */
function dirtyKib(path: string): number {
  const mappings = readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const ours = mappings.filter((mapping) => mapping.split('\n')[0]?.endsWith(path));
  const kib = (mapping: string, field: string): number =>
    Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(mapping)?.[1] ?? 0);
  return ours.reduce((sum, mapping) => sum + kib(mapping, 'Shared_Dirty') + kib(mapping, 'Private_Dirty'), 0);
}

const TMPFS = 0x01021994;
const skip = statfsSync(tmpdir()).type === TMPFS && 'a tmpfs has no disk: its pages never become clean';

t.test(
  'after a failed msync the pages of unconfirmed records are written by the next one',
  { skip },
  async (t) => {
    const { settings } = await createHarness(t);
    const [directories] = settings.pairs;
    if (!directories) throw new Error('a queue has a pair');
    const pair = Pair.open(directories, settings);
    t.teardown(() => pair.close());
    const { data } = pairPaths(directories);
    const sizeBytes = 3 * 4096;
    pair.withMutex(() => append(pair.image, { offset: RING_START, number: 2 ** 33, sizeBytes, type: 1 }, 1));
    pair.data.locate(RING_START, sizeBytes).bytes.fill(7, RING_START, RING_START + sizeBytes);
    t.ok(dirtyKib(data) >= 12, 'what was copied is dirty');
    t.equal(pair.data.sync(RING_START, sizeBytes), 0);
    t.equal(dirtyKib(data), 0, 'the kernel takes it for clean');
    pair.redirtyUnconfirmed();
    t.equal(dirtyKib(data), 12, 'all of the record is dirty again, and nothing else');
    t.equal(pair.data.locate(RING_START, 1).bytes[RING_START], 7, 'and unchanged');
  },
);

t.test(
  'a helper that follows one that died after its msync failed trusts no page that is not confirmed',
  { skip },
  async (t) => {
    const here = await createHarness(t);
    const [directories] = here.settings.pairs;
    if (!directories) throw new Error('a queue has a pair');
    const pair = Pair.open(directories, here.settings);
    t.teardown(() => pair.close());
    const { data } = pairPaths(directories);
    pair.withMutex(() =>
      append(pair.image, { offset: RING_START, number: 2 ** 33, sizeBytes: 4096, type: 1 }, 1),
    );
    pair.data.locate(RING_START, 4096).bytes.fill(7, RING_START, RING_START + 4096);
    t.equal(pair.data.sync(RING_START, 4096), 0);
    t.equal(dirtyKib(data), 0, 'the kernel takes it for clean, as after a failure');
    pair.image.put(FIELD.syncing, 1);
    await here.helper();
    t.equal(dirtyKib(data), 4, 'the next msync writes it again');
    t.equal(pair.image.get(FIELD.syncing), 0);
  },
);
