import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { SECTOR_BYTES } from '../sector.js';
import { allStates } from '../write-log/fixtures/drive.js';
import type { CrashState } from '../write-log/state.js';
import { WriteLogWriter } from '../write-log/writer.js';
import { Fingerprints } from './fingerprint.js';
import { openRecording, type Recording } from './materialise.js';

const DISK_SECTORS = 3;
const EMPTY = 'z';
const ZERO = '\0';

const dir = mkdtempSync(join(tmpdir(), 'plugpull-prints-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
const logFile = join(dir, 'writes.log');
const base = join(dir, 'base.img');

interface Made {
  first: number;
  count: number;
  letter: string;
  flush: boolean;
  fua: boolean;
}

// Use few letters, so that different writes often leave equal disks. Zeros are discarded and not written.
const LOGS = fc.array(
  fc.record<Made>({
    first: fc.nat(DISK_SECTORS - 1),
    count: fc.nat(2),
    letter: fc.constantFrom('a', 'b', EMPTY, ZERO),
    flush: fc.boolean(),
    fua: fc.boolean(),
  }),
  { minLength: 1, maxLength: 5 },
);

function record(made: readonly Made[]): Recording {
  const log = new WriteLogWriter(logFile);
  for (const { first, count, letter, flush, fua } of made) {
    const lengthBytes = Math.min(count, DISK_SECTORS - first) * SECTOR_BYTES;
    const offset = first * SECTOR_BYTES;
    if (lengthBytes === 0) log.add({ flush: true });
    else if (letter === ZERO) log.add({ offset, discardBytes: lengthBytes });
    else log.add({ offset, data: Buffer.alloc(lengthBytes, letter), flush, fua });
  }
  log.close();
  return openRecording(logFile);
}

/** Returns the disk of a state, with one letter per sector. */
function disk({ model }: Recording, made: readonly Made[], state: CrashState): string {
  const letters = Array.from({ length: DISK_SECTORS }, () => EMPTY);
  for (const { entry, sectors } of model.appliedWrites(state)) {
    const all = Array.from({ length: entry.lengthBytes / SECTOR_BYTES }, (_, sector) => sector);
    for (const sector of sectors ?? all)
      letters[entry.offset / SECTOR_BYTES + sector] = made[entry.index]?.letter ?? '?';
  }
  return letters.join('');
}

/** Checks that two states have the same fingerprint if and only if their disks are equal. */
function tellsApart(made: readonly Made[], baseAt: number, mix: number): boolean {
  const recording = record(made);
  try {
    const { model } = recording;
    const letters = disk(recording, made, { prefix: baseAt, kept: model.optional(baseAt), torn: new Map() });
    writeFileSync(base, Buffer.concat([...letters].map((letter) => Buffer.alloc(SECTOR_BYTES, letter))));
    const prints = new Fingerprints(recording, base, baseAt);
    const states = [...model.entries.keys(), model.entries.length].flatMap((prefix) =>
      model.durablePrefix(prefix) < baseAt
        ? []
        : [false, true].flatMap((under) => allStates(model, prefix, under)),
    );
    // Use an order that does not follow the cuts.
    const order = states.map((state, number) => ({ state, key: (number * mix) % states.length }));
    order.sort((a, b) => a.key - b.key);
    const byPrint = new Map<number, string>();
    const disks = new Set<string>();
    for (const { state } of order) {
      const seen = disk(recording, made, state);
      const print = prints.of(state);
      if ((byPrint.get(print) ?? seen) !== seen) return false;
      byPrint.set(print, seen);
      disks.add(seen);
    }
    return byPrint.size === disks.size;
  } finally {
    recording.close();
  }
}

t.test('two states have equal fingerprints if and only if their disks are equal', async () => {
  fc.assert(
    fc.property(LOGS, fc.nat(), fc.nat(10_000), (made, at, mix) => {
      const flushes = [0, ...made.flatMap(({ flush }, index) => (flush ? [index] : []))];
      return tellsApart(made, flushes[at % flushes.length] ?? 0, mix);
    }),
    { numRuns: 300 },
  );
});
