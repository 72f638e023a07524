import { spawnSync } from 'node:child_process';
import {
  closeSync,
  copyFileSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32c } from '@node-rs/crc32';
import t from 'tap';
import { ENTRIES_OFFSET, ENTRY, ENTRY_BYTES, FIELD, STATUS, WORD_BYTES } from '../index/layout.js';
import { RING_START } from '../record/data-file.js';
import { smtp } from '../record/fixtures/memory-data.js';
import { parseSettings } from '../settings/load.js';
import { makeSoundQueue, openDamaged, TARGETS } from './fixtures/damage.js';
import {
  createHarness,
  isRoot,
  type QueueHarness,
  rawSettings,
  takeAll,
  temporaryDirectory,
  textsOf,
} from './fixtures/harness.js';
import { inspectQueue } from './inspect.js';
import { installQueue } from './install.js';
import { rebuildEach, rebuildQueue } from './rebuild.js';
import { verifyQueue } from './verify.js';

const PAGE = 4096;

/** Makes a stopped queue that holds the given messages and one more that is consumed. */
async function stopped(t: Parameters<typeof createHarness>[0], texts: string[]): Promise<QueueHarness> {
  const here = await createHarness(t);
  const helper = await here.helper();
  const queue = await here.open();
  await queue.enqueue([smtp('consumed')]);
  queue.consume(takeAll(queue));
  await queue.enqueue(texts.map((text) => smtp(text)));
  await queue.close();
  await helper.kill('SIGTERM');
  return here;
}

const dataFile = (here: QueueHarness) => join(here.pair, 'queue.data');
const indexFile = (here: QueueHarness) => join(here.pair, 'queue.index');

/** Rewrites a file. `spoil` changes its bytes in place, or returns the new bytes. */
function change(path: string, spoil: (bytes: Buffer) => Buffer | undefined): void {
  const bytes = readFileSync(path);
  writeFileSync(path, spoil(bytes) ?? bytes);
}

/** Flips one bit of a file. */
function flip(path: string, at: number): void {
  change(path, (bytes) => {
    bytes.writeUInt8(bytes.readUInt8(at) ^ 8, at);
    return undefined;
  });
}

/**
 * Flips one bit in place. `flip` truncates the file first, which takes the pages away from processes that
 * have it mapped.
 */
function flipInPlace(path: string, at: number): void {
  const fd = openSync(path, 'r+');
  const byte = Buffer.alloc(1);
  readSync(fd, byte, 0, 1, at);
  writeSync(fd, Buffer.from([byte.readUInt8() ^ 8]), 0, 1, at);
  closeSync(fd);
}

/** Writes the checksum of the first `checked` bytes of a head behind them. */
const sealed = (page: Buffer, checked: number): void =>
  void page.writeUInt32LE(crc32c(page.subarray(0, checked)), checked);

t.test(
  'install makes data and index files at their full size and writes all their blocks [0018, 0022]',
  async (t) => {
    const { settings, pair, directory } = await createHarness(t);
    for (const file of ['0/queue.data', '0/queue.index', 'dead/queue.data', 'dead/queue.index']) {
      const { size, blocks } = statSync(join(directory, file));
      t.ok(blocks * 512 >= size, `${file} has all its blocks`);
    }
    t.equal(statSync(join(pair, 'queue.data')).size, settings.dataBytes);
    t.equal(
      statSync(join(pair, 'queue.index')).size,
      ENTRIES_OFFSET + 256 * 64 + (settings.dataBytes / 256) * 8,
    );
    const before = readFileSync(join(pair, 'queue.data'));
    await t.rejects(installQueue(settings), { code: 'queue-exists', exitCode: 2 });
    t.ok(readFileSync(join(pair, 'queue.data')).equals(before), 'the existing queue is not touched');
  },
);

t.test(
  'install on a disk that is too small fails with no-space-on-disk and leaves no files',
  { skip: !isRoot },
  async (t) => {
    const disk = mkdtempSync(join(tmpdir(), 'plugpull-disk-'));
    t.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'none', disk]).status, 0);
    t.teardown(() => {
      spawnSync('umount', ['-l', disk]);
      rmdirSync(disk);
    });
    const raw = rawSettings(join(disk, 'queue'), { pairs: [{ directory: '0' }, { directory: '1' }] });
    await t.rejects(installQueue(parseSettings(raw)), { code: 'no-space-on-disk', exitCode: 2 });
    t.equal(existsSync(join(disk, 'queue/0/queue.data')), false, 'the first pair is removed too');
    await installQueue(parseSettings({ ...raw, pairs: [{ directory: '0' }], deadLetter: {} })).catch(
      () => undefined,
    );
    t.notOk(readdirSync(disk, { recursive: true }).some((name) => `${name}`.endsWith('.new')));
  },
);

/** Damaged data files: name, expected code, expected message, and how to make one. */
const refusals: [string, string, RegExp, (here: QueueHarness) => void][] = [
  [
    'foreign',
    'not-a-queue',
    /expected it to begin with/,
    (h) => writeFileSync(dataFile(h), 'x'.repeat(2 ** 20)),
  ],
  ['empty', 'not-a-queue', /expected it to begin with/, (h) => writeFileSync(dataFile(h), '')],
  ['missing', 'not-a-queue', /not there/, (h) => rmSync(dataFile(h))],
  ['truncated', 'damaged-queue', /expected 1048576/, (h) => truncateSync(dataFile(h), 600 * 1024)],
  ['too long', 'damaged-queue', /expected 1048576/, (h) => truncateSync(dataFile(h), 2 ** 21)],
  [
    'of another version',
    'wrong-version',
    /has version 2/,
    (h) =>
      change(dataFile(h), (bytes) => {
        bytes.writeUInt32LE(2, 8);
        sealed(bytes, 56);
        return undefined;
      }),
  ],
  [
    'damaged in both copies of its head',
    'damaged-queue',
    /wrong checksum/,
    (h) => {
      flip(dataFile(h), 40);
      flip(dataFile(h), 2 ** 20 - PAGE + 40);
    },
  ],
];

for (const [name, code, message, spoil] of refusals) {
  t.test(`a queue whose data file is ${name} is refused, and its index is not changed`, async (t) => {
    const here = await stopped(t, ['one']);
    spoil(here);
    const index = readFileSync(indexFile(here));
    await t.rejects(here.open(), { code, message, exitCode: 2 });
    t.match((await here.helper()).firstLine, { code });
    await t.rejects(rebuildQueue(here.settings), { code });
    await t.rejects(verifyQueue(here.settings), { code });
    t.ok(readFileSync(indexFile(here)).equals(index));
  });
}

t.test(
  'a queue whose first page is damaged can be opened, because its last page has a copy of the head',
  async (t) => {
    const here = await stopped(t, ['one']);
    change(dataFile(here), (bytes) => bytes.fill(0, 0, PAGE));
    t.same(textsOf(takeAll(await here.open())), ['one']);
  },
);

/** Damaged index files: name, expected `indexProblem` (null: the head is usable), and how to make one. */
const lost: [string, RegExp | null, (here: QueueHarness, other: QueueHarness) => void][] = [
  ['missing', /empty/, (h) => rmSync(indexFile(h))],
  ['empty', /empty/, (h) => truncateSync(indexFile(h), 0)],
  ['cut within its head', /truncated/, (h) => truncateSync(indexFile(h), 100)],
  ['cut within its entries', /truncated/, (h) => truncateSync(indexFile(h), 20_000)],
  ['foreign', /not an index file/, (h) => writeFileSync(indexFile(h), Buffer.alloc(50_000, 'x'))],
  ['of another queue', /of another queue/, (h, other) => copyFileSync(indexFile(other), indexFile(h))],
  ['damaged in its head', /head damaged/, (h) => flip(indexFile(h), 20)],
  [
    'of another version',
    /other version/,
    (h) =>
      change(indexFile(h), (bytes) => {
        bytes.writeUInt32LE(9, 8);
        sealed(bytes, 48);
        return undefined;
      }),
  ],
  [
    'of another size',
    /of another size/,
    (h) =>
      change(indexFile(h), (bytes) => {
        bytes.writeBigUInt64LE(4096n, 24);
        sealed(bytes, 48);
        return undefined;
      }),
  ],
  ['zero behind its head', null, (h) => change(indexFile(h), (bytes) => bytes.fill(0, PAGE))],
  [
    'full of the largest numbers',
    null,
    (h) => change(indexFile(h), (bytes) => bytes.fill('ffffff7f', PAGE, bytes.length, 'hex')),
  ],
  ['ones behind its head', null, (h) => change(indexFile(h), (bytes) => bytes.fill(0xff, PAGE))],
];

t.test('a lost index is made anew however it was damaged, and the restore reports why', async (t) => {
  const texts = ['one', 'two', 'three'];
  const other = await stopped(t, ['another queue']);
  const here = await stopped(t, texts);
  const files = [dataFile(here), indexFile(here)].map((path) => ({ path, bytes: readFileSync(path) }));
  for (const [name, why, spoil] of lost) {
    for (const { path, bytes } of files) writeFileSync(path, bytes);
    spoil(here, other);
    const queue = await here.open();
    const [report] = queue.restores;
    t.match(report?.indexProblem ?? '', why ?? /^$/, name);
    t.same(
      textsOf(takeAll(queue)).sort(),
      ['consumed', ...texts].sort(),
      `${name}: all messages in the data file are back`,
    );
    t.equal(report?.uncertain, 4, `${name}: the restore reports all of them as uncertain`);
    t.same((await verifyQueue(here.settings)).problems, []);
    if (why === null) {
      const helper = await here.helper();
      t.match(
        await queue.enqueue([smtp('four')]),
        { outcome: 'confirmed' },
        `${name}: the queue accepts messages again`,
      );
      await helper.kill('SIGTERM');
    }
    await queue.close();
  }
});

t.test('inspect and verify of a damaged index end, and report the damage', async (t) => {
  const other = await createHarness(t);
  const here = await stopped(t, ['one']);
  const whole = readFileSync(indexFile(here));
  for (const [name, why, spoil] of lost) {
    writeFileSync(indexFile(here), whole);
    spoil(here, other);
    const shown = async () => {
      for await (const line of inspectQueue(here.settings)) t.type(line, 'object');
    };
    await t.rejects(shown(), { code: 'damaged-queue', message: why ?? /rebuild/, exitCode: 2 }, name);
    if (why === null) t.equal((await verifyQueue(here.settings)).ok, false, name);
    else await t.rejects(verifyQueue(here.settings), { code: 'damaged-queue', message: why });
  }
});

t.test('inspect shows entries whose offsets and times are out of range', async (t) => {
  const here = await stopped(t, ['one']);
  change(indexFile(here), (bytes) => {
    const entry = ENTRIES_OFFSET + bytes.readInt32LE(FIELD.head * 4) * 64;
    bytes.writeBigUInt64LE(2n ** 60n, entry + ENTRY.offset * 4);
    bytes.writeBigUInt64LE(2n ** 62n, entry + ENTRY.lastRetry * 4);
    return undefined;
  });
  const shown: object[] = [];
  for await (const line of inspectQueue(here.settings)) shown.push(line);
  t.match(shown[1], { record: 'nothing', lastTry: null });
});

t.test('the index grows when more messages come back than it has entries', async (t) => {
  const here = await createHarness(t, { entries: 4 });
  const helper = await here.helper();
  const queue = await here.open();
  for (let n = 0; n < 10; n += 1) {
    await queue.enqueue([smtp(`m${n}`)]);
    queue.consume(takeAll(queue));
  }
  await queue.close();
  await helper.kill('SIGTERM');
  change(indexFile(here), (bytes) => bytes.fill(0, PAGE));
  const again = await here.open();
  t.equal(takeAll(again).length, 10);
  t.same((await verifyQueue(here.settings)).problems, []);
});

t.test(
  'a record that rots while the queue is in use is kept aside, reported, and never delivered',
  async (t) => {
    const here = await createHarness(t);
    await here.helper();
    const queue = await here.open();
    const outcome = await queue.enqueue([smtp('one'), smtp('two'), smtp('three')]);
    if (outcome.outcome !== 'confirmed') throw new Error(outcome.outcome);
    const [, second] = outcome.numbers;
    const bytes = readFileSync(dataFile(here));
    const place = bytes.indexOf('two', RING_START);
    // Write to the file: its pages in memory are the same as those of the mapping.
    flipInPlace(dataFile(here), place);
    t.equal((await verifyQueue(here.settings)).ok, false, 'verify reports the damage');
    t.same(textsOf(takeAll(queue)), ['one', 'three']);
    const names = queue.keptAside();
    t.match(names, [new RegExp(`^${second}@`)]);
    t.ok(readFileSync(join(here.pair, 'kept-aside', names[0] ?? '')).includes('a@example.org'));
    t.match(await verifyQueue(here.settings), { ok: true, keptAside: 1 });
    await queue.close();
  },
);

t.test('a record that rots while the queue is stopped is reported by one restore only', async (t) => {
  const here = await stopped(t, ['one', 'two']);
  flip(dataFile(here), readFileSync(dataFile(here)).indexOf('two', RING_START));
  const report = await rebuildQueue(here.settings);
  t.match(report.pairs, [{ restored: 1, consumed: 1, damaged: [{ what: 'data' }] }]);
  t.match((await rebuildQueue(here.settings)).pairs, [{ restored: 1, damaged: [] }]);
  t.match(await verifyQueue(here.settings), { ok: true, keptAside: 1, live: 1 });
});

t.test(
  'rebuild from nothing brings back all messages in the data file, and is refused while the queue is in use',
  async (t) => {
    const here = await stopped(t, ['one', 'two']);
    t.match((await rebuildQueue(here.settings)).pairs, [{ restored: 2, consumed: 1, uncertain: 0 }]);
    t.match((await rebuildQueue(here.settings, true)).pairs, [{ restored: 3, consumed: 0, uncertain: 3 }]);
    t.ok(existsSync(`${indexFile(here)}.old`));
    const queue = await here.open();
    await t.rejects(rebuildQueue(here.settings), { code: 'queue-in-use', exitCode: 2 });
    await queue.close();
  },
);

t.test('an index that claims large records everywhere fills no disk with what is kept aside', async (t) => {
  const here = await stopped(t, ['one']);
  const count = 64;
  change(indexFile(here), (bytes) => {
    for (let entry = 0; entry < count; entry += 1) {
      const put = (field: number, value: number) =>
        bytes.writeInt32LE(value, ENTRIES_OFFSET + entry * ENTRY_BYTES + field * WORD_BYTES);
      put(ENTRY.offset, RING_START + 16 * PAGE);
      put(ENTRY.offset + 1, 0);
      put(ENTRY.number, entry);
      put(ENTRY.number + 1, 99);
      put(ENTRY.length, entry % 2 === 0 ? 2 ** 19 : 2 ** 17);
      put(ENTRY.status, STATUS.ready);
    }
    return undefined;
  });
  const { pairs } = await rebuildQueue(here.settings);
  t.equal(pairs[0]?.damaged.length, count, 'all are named');
  const directory = join(here.pair, 'kept-aside');
  const sizes = readdirSync(directory).map((name) => statSync(join(directory, name)).size);
  t.equal(sizes.length, count);
  const keptBytes = sizes.reduce((sum, size) => sum + size, 0);
  t.ok(keptBytes >= 2 ** 17 && keptBytes < 2 ** 18, `${keptBytes} bytes are kept aside`);
});

for (const [what, spoil, code] of [
  ['is missing', (path: string) => rmSync(path), 'not-a-queue'],
  ['is damaged', (path: string) => change(path, (bytes) => bytes.fill(0)), 'not-a-queue'],
  ['was cut', (path: string) => truncateSync(path, 8 * PAGE), 'damaged-queue'],
] as const) {
  t.test(
    `rebuild restores the other pairs when the data file of the dead letters ${what}, and names it`,
    async (t) => {
      const here = await stopped(t, ['one', 'two']);
      spoil(join(here.directory, 'dead', 'queue.data'));
      rmSync(indexFile(here));
      const error = { code, exitCode: 2 };
      t.match(await rebuildEach(here.settings), {
        pairs: [{ directory: here.pair, restored: 3 }],
        failed: [{ directory: join(here.directory, 'dead'), error }],
      });
      rmSync(indexFile(here));
      await t.rejects(rebuildQueue(here.settings), error);
      t.ok(existsSync(indexFile(here)), 'the others are rebuilt before the error');
    },
  );
}

t.test(
  'when the index is removed while the queue is in use, opening fails and no new index is made',
  async (t) => {
    const here = await stopped(t, ['one']);
    const queue = await here.open();
    rmSync(indexFile(here));
    await t.rejects(here.open(), { code: 'damaged-queue', message: /in use/ });
    t.same(textsOf(takeAll(queue)), ['one']);
  },
);

t.test('closing the queue stores the message number up to which its index is synced', async (t) => {
  const here = await stopped(t, ['one']);
  const words = new Int32Array(new Uint8Array(readFileSync(indexFile(here))).buffer);
  const wide = (word: number) => (words[word] ?? 0) * 1 + (words[word + 1] ?? 0) * 2 ** 32;
  t.ok(wide(FIELD.lastSyncNumber) <= wide(FIELD.nextNumber) && wide(FIELD.lastSyncNumber) > 0);
});

t.test('a message that damage takes away is named when either of the two files still shows it', async (t) => {
  // In this queue, with these seeds, old sectors come back and show whole records of consumed messages in the space
  // of messages that wait.
  const sound = await makeSoundQueue(t, 1);
  const directory = temporaryDirectory(t);
  await installQueue(parseSettings({ ...sound.raw, directory }));
  let named = 0;
  for (let seed = 520; seed < 562; seed += 1) {
    const target = TARGETS[seed % TARGETS.length] ?? 'both';
    const outcome = await openDamaged(sound, directory, target, seed);
    const what = `seed ${seed}, ${target}: ${outcome.what}`;
    t.same(outcome.unnamed, [], what);
    t.same(outcome.problems, [], what);
    named += outcome.named;
  }
  t.ok(named > 0, 'some messages were lost, and named');
});
