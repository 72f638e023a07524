import fc from 'fast-check';
import t from 'tap';
import { Batcher, type BatchRules } from './batcher.js';
import type { SyncRequest } from './tokens.js';

/** Rules under which no batch becomes due. */
const NEVER: BatchRules = {
  maxBatchBytes: 2 ** 40,
  maxBatchRequests: 65_536,
  maxGatherMs: 1e9,
  maxIdleMs: 0,
  maxSinceWriteMs: null,
  contiguousRequests: null,
  maxGapPages: null,
  maxGapBytes: null,
  writeOnMisfit: true,
  confirmationTimeoutMs: 200,
  maxUnconfirmedBatches: 1,
};

const request = (slot: number, offset: number, length = 256, id = 1, incarnation = 1): SyncRequest => ({
  slot,
  incarnation,
  id,
  offset,
  length,
});

/** Creates a batcher at time 0 and passes in the requests, one per millisecond. */
function gathered(rules: Partial<BatchRules>, ...requests: SyncRequest[]): Batcher {
  const batcher = new Batcher({ ...NEVER, ...rules }, 0);
  requests.forEach((each, index) => void batcher.receive(each, index + 1));
  return batcher;
}

/** Records the batch as written and its confirmations as sent. @returns the requests of the batch */
function write(batcher: Batcher, nowMs: number): SyncRequest[] {
  const requests = [...batcher.requests()];
  batcher.written(requests, nowMs);
  return requests;
}

/** Confirms the confirmations of the given requests, as their workers do. */
const confirm = (batcher: Batcher, requests: SyncRequest[]): void => {
  for (const { slot, incarnation, id } of requests) {
    batcher.confirmed({ slot, incarnation, id, batch: 0, helper: 0 });
  }
};

const slotsOf = (requests: readonly SyncRequest[]): number[] => requests.map(({ slot }) => slot);

t.test('a batch that no rule makes due keeps gathering', async (t) => {
  const batcher = gathered({}, request(0, 4096), request(1, 8192));
  t.equal(batcher.isDue(1e8), false);
  t.equal(new Batcher({ ...NEVER, maxGatherMs: 0 }, 0).isDue(1e9), false, 'an empty batch is never due');
});

t.test('a batch is due at maxBatchBytes (claims 6, 8, 22, 24, 38, 50)', async (t) => {
  const batcher = gathered({ maxBatchBytes: 1024 }, request(0, 4096, 512), request(1, 8192, 511));
  t.equal(batcher.isDue(2), false);
  batcher.receive(request(2, 20_480, 1), 3);
  t.equal(batcher.isDue(3), true);
});

t.test('a batch is due at maxBatchRequests (claims 9, 25, 39, 51)', async (t) => {
  const batcher = gathered({ maxBatchRequests: 3 }, request(0, 4096), request(1, 8192));
  t.equal(batcher.isDue(2), false);
  batcher.receive(request(2, 12_288), 3);
  t.equal(batcher.isDue(3), true);
});

t.test('a batch is due maxGatherMs after its first request (claims 10, 26, 36, 40, 48, 52)', async (t) => {
  const batcher = gathered({ maxGatherMs: 50 }, request(0, 4096), request(1, 8192));
  t.equal(batcher.isDue(50), false);
  t.equal(batcher.waitMs(11), 40);
  t.equal(batcher.isDue(51), true);
  t.equal(gathered({ maxGatherMs: 0 }, request(0, 4096)).isDue(1), true, 'with 0 it is due at once');
});

t.test('a batch is due maxIdleMs after its latest request (claims 11, 27, 41, 53)', async (t) => {
  const batcher = gathered({ maxIdleMs: 10 }, request(0, 4096), request(1, 8192));
  t.equal(batcher.isDue(11), false);
  t.equal(batcher.waitMs(4), 8);
  t.equal(batcher.isDue(12), true);
});

t.test('a batch is due maxSinceWriteMs after the previous write (claims 5, 21)', async (t) => {
  const batcher = gathered({ maxSinceWriteMs: 30 }, request(0, 4096));
  t.equal(batcher.isDue(29), false);
  t.equal(batcher.waitMs(20), 10);
  t.equal(batcher.isDue(30), true);
  confirm(batcher, write(batcher, 31));
  batcher.clearConfirmed(32);
  batcher.receive(request(1, 4096), 33);
  t.equal(batcher.isDue(60), false);
  t.equal(batcher.isDue(61), true);
});

t.test('a batch is due at contiguousRequests without a gap (claims 7, 23, 37, 49)', async (t) => {
  const batcher = gathered({ contiguousRequests: 3 }, request(0, 4608), request(1, 8192), request(2, 4096));
  t.equal(batcher.isDue(3), false);
  batcher.receive(request(3, 4352), 4);
  t.equal(batcher.isDue(4), true);
});

for (const [name, rules] of [
  ['pages (claims 12, 28, 42, 54)', { maxGapPages: 2 }],
  ['bytes (claims 13, 29, 43, 55)', { maxGapBytes: 8192 }],
] as const) {
  t.test(`a request beyond the largest gap is stored and makes the batch due, in ${name}`, async (t) => {
    const batcher = gathered(rules, request(0, 40_960, 4096));
    t.equal(batcher.receive(request(1, 45_056 + 8192), 2), 'added', 'behind the batch, at the limit');
    t.equal(
      batcher.receive(request(2, 40_960 - 8192 - 256), 3),
      'added',
      'in front of the batch, at the limit',
    );
    t.equal(batcher.isDue(3), false);
    t.equal(batcher.receive(request(3, 53_504 + 8192 + 1), 4), 'stored', 'one byte beyond the limit');
    t.equal(batcher.storedCount, 1);
    t.equal(batcher.isDue(4), true, 'the stored request makes the batch due');
    t.equal(
      gathered({ ...rules, writeOnMisfit: false }, request(0, 4096), request(1, 2 ** 30)).isDue(5),
      false,
    );
  });
}

t.test('if both gap limits are set, the smaller one applies', async (t) => {
  const batcher = gathered({ maxGapPages: 2, maxGapBytes: 100 }, request(0, 4096));
  t.equal(batcher.receive(request(1, 4352 + 101), 2), 'stored');
  t.equal(batcher.receive(request(2, 4352 + 100), 2), 'added');
});

t.test('a request that did not fit comes first in the next batch [0042, 0051; claims 16, 33]', async (t) => {
  const batcher = gathered({ maxGapBytes: 0 }, request(0, 4096), request(1, 2 ** 20), request(2, 2 ** 21));
  const first = write(batcher, 5);
  t.equal(
    batcher.receive(request(3, 2 ** 20 + 256), 6),
    'stored',
    'no request is added in the confirming phase',
  );
  t.same(slotsOf(batcher.requests()), []);
  confirm(batcher, first);
  t.same(batcher.clearConfirmed(7), []);
  t.same(slotsOf(batcher.requests()), [1, 3]);
  t.equal(batcher.storedCount, 1);
  t.equal(batcher.isDue(7), true, 'the request that is still stored makes the batch due');
  confirm(batcher, write(batcher, 8));
  batcher.clearConfirmed(9);
  t.same(slotsOf(batcher.requests()), [2]);
});

t.test(
  'with two unconfirmed batches allowed, the second is gathered and written during the wait',
  async (t) => {
    const batcher = gathered({ maxUnconfirmedBatches: 2, maxGatherMs: 0 }, request(0, 4096));
    const first = write(batcher, 2);
    t.equal(batcher.receive(request(1, 8192), 3), 'added');
    t.equal(batcher.isDue(3), true);
    const second = write(batcher, 4);
    t.equal(batcher.phase, 'confirming', 'two batches are unconfirmed');
    t.equal(batcher.receive(request(2, 12_288), 5), 'stored');
    confirm(batcher, second);
    batcher.clearConfirmed(6);
    t.equal(batcher.phase, 'gathering', 'the later batch may be confirmed first');
    t.same(slotsOf(batcher.requests()), [2]);
    write(batcher, 7);
    t.equal(batcher.phase, 'confirming');
    t.same(batcher.clearConfirmed(202), first, 'each batch has its own time-out');
  },
);

t.test(
  'the helper waits for the confirmations of its confirmations, up to the time-out [0043, 0044]',
  async (t) => {
    const batcher = gathered({ maxGatherMs: 0 }, request(0, 4096), request(1, 8192));
    write(batcher, 10);
    t.equal(batcher.phase, 'confirming');
    t.equal(batcher.isDue(11), false, 'nothing is written during the wait');
    batcher.confirmed({ slot: 0, incarnation: 1, id: 1, batch: 1, helper: 1 });
    batcher.confirmed({ slot: 1, incarnation: 9, id: 1, batch: 1, helper: 1 });
    t.same(batcher.clearConfirmed(209), [], 'a token with another incarnation of the worker does not count');
    t.equal(batcher.phase, 'confirming');
    t.equal(batcher.waitMs(209), 1);
    t.same(slotsOf(batcher.clearConfirmed(210)), [1]);
    t.equal(batcher.phase, 'gathering');
    t.same(batcher.requests(), []);
  },
);

t.test('a batch whose confirmations reached no worker is cleared at once', async (t) => {
  const batcher = gathered({ maxGatherMs: 0 }, request(0, 4096));
  batcher.written([], 10);
  t.equal(batcher.waitMs(11), 0);
  batcher.clearConfirmed(11);
  t.equal(batcher.phase, 'gathering');
});

t.test(
  'a new request confirms the previous one, and a repeated request gets another confirmation',
  async (t) => {
    const batcher = gathered({ maxGatherMs: 0 }, request(0, 4096), request(1, 8192));
    t.equal(batcher.receive(request(0, 4096), 3), 'skipped', 'a repeated request enters the batch once');
    write(batcher, 4);
    t.equal(batcher.receive(request(0, 16_384, 256, 2), 5), 'stored', 'the next request of worker 0');
    t.equal(
      batcher.receive(request(1, 8192), 6),
      'stored',
      'worker 1 has not read its confirmation and gets another one',
    );
    t.equal(batcher.waitMs(6), 0, 'no confirmation is awaited');
    t.same(batcher.clearConfirmed(7), []);
    t.equal(batcher.phase, 'gathering');
    t.same(
      batcher.requests().map(({ slot, id }) => `${slot}/${id}`),
      ['0/2', '1/1'],
    );
  },
);

t.test('a request from the successor of a dead worker ends the wait for the dead worker', async (t) => {
  const batcher = gathered({ maxGatherMs: 0 }, request(0, 4096, 256, 5, 1));
  write(batcher, 2);
  batcher.receive(request(0, 8192, 256, 1, 2), 3);
  batcher.clearConfirmed(3);
  t.equal(batcher.phase, 'gathering');
});

const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: null });
const anyRules: fc.Arbitrary<BatchRules> = fc.record({
  maxBatchBytes: fc.integer({ min: 1, max: 20_000 }),
  maxBatchRequests: fc.integer({ min: 1, max: 12 }),
  maxGatherMs: fc.nat(60),
  maxIdleMs: fc.nat(20),
  maxSinceWriteMs: maybe(fc.nat(60)),
  contiguousRequests: maybe(fc.integer({ min: 2, max: 5 })),
  maxGapPages: maybe(fc.nat(8)),
  maxGapBytes: maybe(fc.nat(40_000)),
  writeOnMisfit: fc.boolean(),
  confirmationTimeoutMs: fc.integer({ min: 1, max: 50 }),
  maxUnconfirmedBatches: fc.integer({ min: 1, max: 4 }),
});
const event = fc.record({
  what: fc.constantFrom('new', 'new', 'again', 'confirm', 'time'),
  slot: fc.nat(7),
  offset: fc.nat(400).map((slot) => 4096 + 256 * slot),
  length: fc.integer({ min: 1, max: 12 }).map((slots) => slots * 256),
  ms: fc.nat(30),
});

/**
 * Workers with one request in flight each, the loop of a helper around the batcher, and the checks on both.
 */
class Model {
  readonly batcher: Batcher;
  readonly inFlight = new Map<number, SyncRequest>();
  readonly nextId = new Map<number, number>();
  /** By worker slot: ids of the requests whose confirmations are in the worker's FIFO. */
  readonly answers = new Map<number, Set<number>>();
  written = 0;
  sent = 0;
  nowMs = 0;

  constructor(rules: BatchRules) {
    this.batcher = new Batcher(rules, 0);
  }

  ask(slot: number, offset: number, length: number): void {
    if (this.inFlight.has(slot)) return;
    const id = (this.nextId.get(slot) ?? 0) + 1;
    this.nextId.set(slot, id);
    this.inFlight.set(slot, request(slot, offset, length, id));
    this.sent += 1;
    this.receive(slot);
  }

  receive(slot: number): void {
    const asked = this.inFlight.get(slot);
    if (asked) this.batcher.receive(asked, this.nowMs);
  }

  /** Lets the worker read its confirmation. */
  confirm(slot: number): void {
    const asked = this.inFlight.get(slot);
    if (!asked || this.answers.get(slot)?.has(asked.id) !== true) return;
    this.inFlight.delete(slot);
    this.answers.delete(slot);
    const { incarnation, id } = asked;
    this.batcher.confirmed({ slot, incarnation, id, batch: 0, helper: 0 });
  }

  turn(): void {
    this.batcher.clearConfirmed(this.nowMs);
    if (this.batcher.isDue(this.nowMs)) this.write();
  }

  write(): void {
    const requests = [...this.batcher.requests()];
    const ranges = this.batcher.ranges();
    const keys = new Set(requests.map(({ slot, id }) => `${slot}/${id}`));
    if (keys.size !== requests.length) throw new Error('a request is in the batch twice');
    for (const { slot, id, offset, length } of requests) {
      const covered = ranges.some(
        (range) => offset >= range.offset && offset + length <= range.offset + range.length,
      );
      if (!covered) throw new Error(`${length} bytes at ${offset} are in no range`);
      this.answers.set(slot, (this.answers.get(slot) ?? new Set()).add(id));
    }
    this.written += requests.length;
    this.batcher.written(requests, this.nowMs);
  }
}

t.test('no request is lost under any rules and any order of events', async (t) => {
  let written = 0;
  fc.assert(
    fc.property(anyRules, fc.array(event, { minLength: 20, maxLength: 120 }), (rules, events) => {
      const model = new Model(rules);
      for (const { what, slot, offset, length, ms } of events) {
        if (what === 'new') model.ask(slot, offset, length);
        else if (what === 'again') model.receive(slot);
        else if (what === 'confirm') model.confirm(slot);
        else model.nowMs += ms;
        model.turn();
        const wait = model.batcher.waitMs(model.nowMs);
        if (wait !== undefined && wait < 0) throw new Error('the wait is negative');
      }
      // Every request must be confirmed by the passing of time, without being sent again.
      for (let round = 0; round < 200 && model.inFlight.size > 0; round += 1) {
        for (const slot of [...model.inFlight.keys()]) model.confirm(slot);
        const wait = model.batcher.waitMs(model.nowMs);
        if (wait !== undefined) model.nowMs += wait;
        model.turn();
      }
      if (model.inFlight.size > 0)
        throw new Error(`never written: ${JSON.stringify([...model.inFlight.values()])}`);
      written += model.written;
    }),
    { numRuns: 300 },
  );
  t.ok(written > 1000, `${written} requests were written`);
});

t.test('the ranges cover every byte of every request, and distant ranges are not merged', async (t) => {
  const batcher = gathered({}, request(0, 2 ** 33, 4096), request(1, 4096, 256), request(2, 4352, 256));
  t.same(batcher.ranges(), [
    { offset: 4096, length: 512 },
    { offset: 2 ** 33, length: 4096 },
  ]);
  const inside = gathered({}, request(0, 4096, 8192), request(1, 8192, 256));
  t.same(
    inside.ranges(),
    [{ offset: 4096, length: 8192 }],
    'a request inside another one does not shorten the range',
  );
});
