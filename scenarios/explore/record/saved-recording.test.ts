import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { KitError } from '../../../conformance/errors.js';
import type { HistoryEvent } from '../../../conformance/history/events.js';
import { loadTarget } from '../../../conformance/target-file/load.js';
import { WriteLogWriter } from '../../../faults/write-log/writer.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { openSavedRecording, saveRecording } from './saved-recording.js';

const IMAGE_BYTES = 1 << 20;
const MESSAGE = Buffer.from('a message');
const HISTORY: HistoryEvent[] = [
  {
    kind: 'submitted',
    atMs: 1,
    id: '1-0-0',
    producer: 0,
    sizeBytes: MESSAGE.length,
    digest: '',
    recipients: 1,
    shape: 'tiny',
  },
  { kind: 'log-position', atMs: 2, id: '1-0-0', what: 'confirmed', entries: 2 },
  {
    kind: 'state-explored',
    atMs: 3,
    state: '2',
    prefix: 2,
    entriesBegun: 2,
    strategy: 'mount',
    recovered: true,
    heldBits: '',
    wrongCount: 0,
    detail: '',
    equivalentStates: 0,
  },
  { kind: 'run-ended', atMs: 4, how: 'completed' },
];

function writeLog(path: string, offset = 4096): void {
  const log = new WriteLogWriter(path);
  log.add({ offset, data: Buffer.alloc(4096, 'x') });
  log.add({ flush: true });
  log.close();
}

const SAMPLES = [{ entries: 1, sizes: { 'base.log': 20 } }];

/** Saves a recording of a run with one message in the folder `recording`. */
function makeRecording(t: { teardown(remove: () => void): void }) {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const [from, dir] = [join(workspace.dir, 'from'), join(workspace.dir, 'recording')];
  for (const folder of [from, dir]) mkdirSync(folder);
  const [image, log] = [join(from, 'disk'), join(from, 'log')];
  writeFileSync(image, 'the disk before');
  truncateSync(image, IMAGE_BYTES);
  writeLog(log);
  const file = workspace.queue('');
  const target = loadTarget(file);
  const digests = new Map([['1-0-0', createHash('sha256').update(MESSAGE).digest('hex')]]);
  const filesystem = { type: 'ext4', mountOptions: 'commit=1' } as const;
  const run = {
    id: 'run-1',
    image,
    log,
    scratch: '/nowhere',
    from: 0,
    end: 2,
    filesystem,
    digests,
    samples: SAMPLES,
    remove: () => {},
  };
  saveRecording(run, target, 7, dir);
  writeFileSync(join(dir, 'history.jsonl'), HISTORY.map((event) => `${JSON.stringify(event)}\n`).join(''));
  return { workspace, file, target, dir, run, image: join(dir, 'disk.img'), log: join(dir, 'writes.log') };
}

t.test(
  'a saved recording is opened unchanged, without the events that an exploration added to its history',
  async (t) => {
    const { target, dir, run } = makeRecording(t);
    const again = openSavedRecording(dir, target);
    t.match(again, { seed: 7, events: HISTORY.slice(0, 2), run: { samples: SAMPLES } });
    t.equal(again.events.length, 2);
    const { image: _image, log: _log, remove: _remove, ...what } = again.run;
    t.match(what, { id: run.id, from: 0, end: 2, filesystem: run.filesystem });
    t.same(again.run.digests, run.digests);
    t.ok(readFileSync(again.run.image).equals(readFileSync(run.image)));
    again.run.remove();
    t.ok(readFileSync(again.run.log).equals(readFileSync(run.log)), 'the files belong to the user and stay');
  },
);

t.test('a wrong recording is refused with the name of the file and what was expected', async (t) => {
  const refused = (name: string, message: RegExp, damage: (made: ReturnType<typeof makeRecording>) => void) =>
    t.test(name, async (t) => {
      const made = makeRecording(t);
      damage(made);
      let error: unknown;
      try {
        openSavedRecording(made.dir, made.target);
      } catch (thrown) {
        error = thrown;
      }
      if (!(error instanceof KitError)) throw new Error(`expected a refusal, got ${error}`);
      t.equal(error.exitCode, 2);
      t.match(error.message, message);
      t.notMatch(error.message, '\n', 'the message is one line');
    });
  await refused('a missing image', /disk\.img: there is no such file, expected the image/, ({ image }) =>
    rmSync(image),
  );
  await refused('an image cut off', /disk\.img: has 9 bytes, expected .* of 1048576 bytes/, ({ image }) =>
    truncateSync(image, 9),
  );
  await refused('another image', /disk\.img: is not the one that was recorded/, ({ image }) => {
    writeFileSync(image, 'another disk');
    truncateSync(image, IMAGE_BYTES);
  });
  await refused('a missing log', /writes\.log: .*no such file/i, ({ log }) => rmSync(log));
  await refused('an empty log', /writes\.log: expected a write log, the file has 0 bytes/, ({ log }) =>
    truncateSync(log, 0),
  );
  await refused(
    'a file that is not a log',
    /writes\.log: expected a write log .*its mark is missing/,
    ({ log }) => writeFileSync(log, 'a text that is long enough to be the head of a log'),
  );
  await refused('a log of another version', /writes\.log: expected version 1 .* found 2/, ({ log }) => {
    const bytes = readFileSync(log);
    bytes.writeUInt8(2, 8);
    writeFileSync(log, bytes);
  });
  await refused('a log cut off', /writes\.log: the file ends within entry 1, expected 2/, ({ log }) =>
    truncateSync(log, readFileSync(log).length - 512),
  );
  await refused('a log with fewer entries', /writes\.log: has 1 entries, expected at least 2/, ({ log }) => {
    const bytes = readFileSync(log);
    bytes.writeBigUInt64LE(1n, 16);
    writeFileSync(log, bytes);
  });
  await refused(
    'a log of a larger disk',
    /writes\.log: entry 0 writes to byte 2101248, expected a disk of 1048576 bytes/,
    ({ log }) => {
      rmSync(log);
      writeLog(log, 2 * IMAGE_BYTES);
    },
  );
  await refused('another log', /writes\.log: is not the one that was recorded/, ({ log }) => {
    rmSync(log);
    writeLog(log, 8192);
  });
  await refused('a missing history', /history\.jsonl: expected a history: .*no such file/i, ({ dir }) =>
    rmSync(join(dir, 'history.jsonl')),
  );
  await refused(
    'the history of another run',
    /history\.jsonl: has 1 messages, expected the 1 of the run/,
    ({ dir }) => {
      const events = readFileSync(join(dir, 'history.jsonl'), 'utf8').replaceAll('1-0-0', '1-0-1');
      writeFileSync(join(dir, 'history.jsonl'), events);
    },
  );
  await refused('a missing manifest', /recording\.json: expected what `explore --out` keeps/, ({ dir }) =>
    rmSync(join(dir, 'recording.json')),
  );
  const change = (dir: string, more: Record<string, unknown>) => {
    const file = join(dir, 'recording.json');
    const manifest = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
    writeFileSync(file, JSON.stringify({ ...manifest, ...more }));
  };
  for (const version of [1, 9])
    await refused(
      `a manifest of version ${version}`,
      new RegExp(
        `recording\\.json: has version ${version} of the format, expected 2: use the kit that made it$`,
      ),
      ({ dir }) => change(dir, { version }),
    );
  await refused('a start after the end', /recording\.json: from: expected at most 2/, ({ dir }) =>
    change(dir, { from: 3 }),
  );
  await refused('a log that is a directory', /writes\.log: expected the log .* it is no file/, ({ log }) => {
    rmSync(log);
    mkdirSync(log);
  });
  await refused('a manifest without content', /recording\.json: expected what .*: format: /, ({ dir }) =>
    writeFileSync(join(dir, 'recording.json'), '{}'),
  );
  await refused('a missing directory', /recording\.json: expected what .*no such file/i, ({ dir }) =>
    rmSync(dir, { recursive: true }),
  );
});

t.test(
  'the command line reports a wrong recording in one line, and refuses another filesystem or target',
  async (t) => {
    const { workspace, file, dir, log } = makeRecording(t);
    const explore = (...flags: string[]) => workspace.run(['explore', ...flags]);
    t.match(await explore(file, '--recording', dir, '--fs', 'xfs'), {
      code: 2,
      stderr: /^plugpull: --fs xfs: the filesystem is that of --recording \S+\n$/,
    });
    t.match(await explore('--recording', dir), {
      code: 2,
      stderr:
        /^plugpull: --recording \S+: is of the target test \(http\), expected one of reference \(\w+\)\n$/,
    });
    copyFileSync(file, log);
    t.match(await explore(file, '--recording', dir), {
      code: 2,
      stderr: /^plugpull: \S+writes\.log: expected a write log \(dm-log-writes\), its mark is missing\n$/,
    });
  },
);
