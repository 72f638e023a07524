import { readFileSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import t from 'tap';
import { FIELD } from '../index/layout.js';
import { append } from '../index/lists.js';
import { RING_START } from '../record/data-file.js';
import { createHarness } from './fixtures/harness.js';
import { Pair } from './pair.js';
import { pairPaths } from './paths.js';

/**
 * Returns the size of the dirty pages of a mapped file in KiB: the pages that the kernel would still write.
 */
function dirtyKib(path: string): number {
  const mappings = readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-[0-9a-f]+ )/m);
  const ours = mappings.filter((mapping) => mapping.split('\n')[0]?.endsWith(path));
  const kib = (mapping: string, field: string): number =>
    Number(new RegExp(`^${field}:\\s+(\\d+)`, 'm').exec(mapping)?.[1] ?? 0);
  return ours.reduce((sum, mapping) => sum + kib(mapping, 'Shared_Dirty') + kib(mapping, 'Private_Dirty'), 0);
}

/** Type of a tmpfs, as statfs(2) reports it. */
const TMPFS = 0x01021994;
const skip = statfsSync(tmpdir()).type === TMPFS && 'pages of a tmpfs never become clean';

t.test(
  'after a failed msync, the next msync writes the pages of unconfirmed records',
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
    t.ok(dirtyKib(data) >= 12, 'the pages of a copied record are dirty');
    t.equal(pair.data.sync(RING_START, sizeBytes), 0);
    t.equal(dirtyKib(data), 0, 'the kernel treats them as clean');
    pair.redirtyUnconfirmed();
    t.equal(dirtyKib(data), 12, 'the pages of the record are dirty again, and no others');
    t.equal(pair.data.locate(RING_START, 1).bytes[RING_START], 7, 'the record is unchanged');
  },
);

t.test(
  'after a helper died following a failed msync, its successor makes the pages of unconfirmed records dirty',
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
    t.equal(dirtyKib(data), 0, 'the kernel treats the page as clean, as after a failed msync');
    pair.image.put(FIELD.syncing, 1);
    await here.helper();
    t.equal(dirtyKib(data), 4, 'the next msync writes the page again');
    t.equal(pair.image.get(FIELD.syncing), 0);
  },
);
