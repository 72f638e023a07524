import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { shuffled } from '../../../faults/crash-states/enumerate.js';
import { materialise, openRecording, type Recording } from '../../../faults/crash-states/materialise.js';
import { SECTOR_BYTES } from '../../../faults/sector.js';
import type { CrashState } from '../../../faults/write-log/state.js';
import { WriteLogWriter } from '../../../faults/write-log/writer.js';
import { seeded } from '../../host/random.js';
import { packageRoot } from '../../host/version.js';
import type { Inspection } from './inspection.js';
import { RestoreService } from './restore-service.js';
import { ImageInspector, RestoreClient, type TimedOut } from './state-inspectors.js';

const FIXTURE = join(packageRoot(), 'conformance/fixtures/restore-bytes.mjs');
const LETTERS = [...'abcdefgh'];
/** Sectors of the file, and where they lie on the device: in two pieces. */
const FILE_SECTORS = 16;
const DEVICE_SECTORS = 64;
const EXTENTS = [
  { fileOffset: 0, deviceOffset: 8 * SECTOR_BYTES, lengthBytes: 8 * SECTOR_BYTES },
  { fileOffset: 8 * SECTOR_BYTES, deviceOffset: 32 * SECTOR_BYTES, lengthBytes: 8 * SECTOR_BYTES },
];
const STATES = 300;
const LONG_MS = 60_000;

interface Made {
  recording: Recording;
  base: string;
  dir: string;
  states: CrashState[];
  /** The letters that the file holds in each state. */
  expected: string[][];
}

/** A log of small writes all over the file and beside it, and states of it in the order in which they are explored. */
function made(t: { teardown(end: () => void): void }, letters: readonly string[]): Made {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-lookers-'));
  const random = seeded(1);
  const log = new WriteLogWriter(join(dir, 'log'));
  for (let entry = 0; entry < 60; entry++) {
    if (random.int(6) === 0) log.add({ flush: true });
    else {
      const count = 1 + random.int(4);
      const data = Buffer.alloc(count * SECTOR_BYTES, random.pick(letters));
      log.add({ offset: random.int(DEVICE_SECTORS - count) * SECTOR_BYTES, data });
    }
  }
  log.close();
  const recording = openRecording(join(dir, 'log'));
  t.teardown(() => {
    recording.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const base = join(dir, 'base');
  writeFileSync(base, Buffer.alloc(DEVICE_SECTORS * SECTOR_BYTES));
  const states: CrashState[] = [];
  for (const { state } of shuffled(recording.model, 0, seeded(2), 32)) {
    if (states.push(state) === STATES) break;
  }
  return { recording, base, dir, states, expected: states.map((state) => lettersOf(state)) };

  function lettersOf(state: CrashState): string[] {
    const image = join(dir, 'image');
    writeFileSync(image, Buffer.alloc(DEVICE_SECTORS * SECTOR_BYTES));
    materialise(recording, state, image);
    const bytes = readFileSync(image);
    const at = (sector: number) => (sector < 8 ? 8 + sector : 24 + sector);
    const all = Array.from({ length: FILE_SECTORS }, (_, sector) =>
      String.fromCharCode(bytes[at(sector) * SECTOR_BYTES] ?? 0),
    );
    return [...new Set(all.filter((letter) => letter !== '\0'))].sort();
  }
}

async function look(
  t: { teardown(end: () => void): void },
  { recording, base, dir, states }: Made,
  flags: readonly string[],
  restoreTimeoutMs = LONG_MS,
): Promise<(Inspection | TimedOut)[]> {
  const service = new RestoreService([process.execPath, FIXTURE, ...flags], {});
  t.teardown(() => service.end());
  const digests = LETTERS.map((letter) => createHash('sha256').update(letter).digest('hex'));
  const asker = new RestoreClient(
    service,
    { restoreTimeoutMs, deadlineEpochMs: Date.now() + LONG_MS },
    digests,
  );
  const file = {
    name: 'data',
    extents: EXTENTS,
    sizeBytes: FILE_SECTORS * SECTOR_BYTES,
    path: join(dir, 'data'),
  };
  const plan = { name: 'image' as const, files: [file], patches: join(dir, 'patches') };
  const looker = new ImageInspector(plan, recording, base, 0, asker);
  t.teardown(() => looker.close());
  const found: (Inspection | TimedOut)[] = [];
  // In batches, as the pool hands them out.
  for (let at = 0; at < states.length; at += 32)
    found.push(...(await looker.inspect(states.slice(at, at + 32))));
  return found;
}

/** In the words of `expected`; undefined where it was not recovered. */
function letters(found: Inspection | TimedOut | undefined): string[] | undefined {
  if (found === undefined || 'hung' in found) throw new Error('there was time for every state');
  if (!found.recovered) return undefined;
  const bits = Buffer.from(found.heldBits, 'base64');
  return LETTERS.filter((_, bit) => ((bits[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0);
}

t.test('what differs from state to state is what the files hold', async (t) => {
  const all = made(t, LETTERS);
  const found = await look(t, all, []);
  t.same(found.map(letters), all.expected);
  const kinds = new Set(all.expected.map((some) => some.join())).size;
  t.ok(kinds > 5, `${kinds} kinds`);
});

/** Longer than a program takes to start on a loaded machine. */
const PATIENCE_MS = 4000;

for (const [flag, words, patienceMs, bad] of [
  ['--dies-on', /ended with code 7/, LONG_MS, 30],
  ['--hangs-on', /did not answer within 4 s/, PATIENCE_MS, 2],
] as const) {
  t.test(`asked for several at a time, ${flag} is found in those states and in no others`, async (t) => {
    const some = made(t, LETTERS);
    // So many in which it goes wrong, and all the others between them.
    let left = bad;
    const chosen = some.expected.map((there) => !there.includes('h') || left-- > 0);
    const all = {
      ...some,
      states: some.states.filter((_, place) => chosen[place]),
      expected: some.expected.filter((_, place) => chosen[place]),
    };
    const found = await look(t, all, [flag, 'h'], patienceMs);
    t.same(
      found.map(letters),
      all.expected.map((there) => (there.includes('h') ? undefined : there)),
    );
    const wrong = found.filter((one) => 'recovered' in one && !one.recovered);
    t.equal(wrong.length, bad);
    t.ok(found.length > 2 * bad, `${found.length} states`);
    for (const one of wrong) t.match(one, { detail: words });
  });
}

t.test('a program that dies once and never again is not passed over', async (t) => {
  const all = made(t, LETTERS);
  const once = join(all.dir, 'once');
  const found = await look(t, all, ['--dies-once', once]);
  t.ok(existsSync(once));
  const wrong = found.flatMap((one, place) => ('recovered' in one && !one.recovered ? [place] : []));
  t.equal(wrong.length, 1);
  t.match(found[wrong[0] ?? 0], { detail: /ended with code 9/ });
  t.same(
    found.filter((_, place) => !wrong.includes(place)).map(letters),
    all.expected.filter((_, place) => !wrong.includes(place)),
  );
});
