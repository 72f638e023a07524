import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import type { HistoryEvent } from '../../conformance/history/events.js';
import { markOf } from '../../conformance/protocols/message.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { makeFilesystem, mountFilesystem } from '../../faults/power/filesystem.js';
import { attachLoop, detachLoops } from '../../faults/power/loop.js';
import { unmount } from '../../faults/power/mounts.js';
import { findProgram } from '../../faults/programs.js';
import { parseState } from '../../faults/write-log/state.js';
import { WriteLogWriter } from '../../faults/write-log/writer.js';
import { writeBundle } from '../bundle/bundle.js';
import { describeTarget } from '../bundle/target.js';
import { TestWorkspace } from '../fixtures/kit.js';
import type { ReplayResult } from './replay.js';

const can = process.getuid?.() === 0 && findProgram('mkfs.ext4') !== undefined;
const skip = can ? false : 'it mounts disks, which needs root and mkfs.ext4';

const EXT4 = { type: 'ext4', mountOptions: '' } as const;
const RUN = '20261121-120000-abcdef01';
const BLOCK_BYTES = 4096;

/** Restore program of a target: it prints the SHA-256 of every file in a directory. */
const RESTORE = `
const { createHash } = require('node:crypto');
const { readdirSync, readFileSync } = require('node:fs');
require('node:readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { queue } = JSON.parse(line);
  const names = {};
  for (const file of readdirSync(queue)) {
    names[file] = createHash('sha256').update(readFileSync(queue + '/' + file)).digest('hex');
  }
  console.log(JSON.stringify({ live: Object.keys(names).map(Number), names, problems: [] }));
});
`;

function onDisk(image: string, mountPoint: string, use: () => void): void {
  mkdirSync(mountPoint, { recursive: true });
  mountFilesystem(EXT4, attachLoop(image), mountPoint);
  try {
    use();
  } finally {
    unmount(mountPoint);
    detachLoops(image);
  }
}

/**
 * Makes the bundle of a queue that confirmed a message before any part of it was flushed. The log has the
 * blocks in which the disks before and after the message differ.
 * @returns the bundle's file, and the number of writes in the log.
 */
async function lostMessage(workspace: TestWorkspace): Promise<{ file: string; writes: number }> {
  const evidence = join(workspace.dir, 'evidence');
  const image = join(evidence, 'disk.img');
  const mountPoint = join(workspace.dir, 'mnt');
  const message = Buffer.concat([markOf(RUN, '1-0-0'), Buffer.alloc(9000, 'x')]);
  mkdirSync(evidence);
  writeFileSync(image, '');
  truncateSync(image, 16 << 20);
  makeFilesystem(EXT4, image);
  onDisk(image, mountPoint, () => mkdirSync(join(mountPoint, 'data')));
  const before = readFileSync(image);
  onDisk(image, mountPoint, () => writeFileSync(join(mountPoint, 'data', '1'), message));
  const after = readFileSync(image);
  writeFileSync(image, before);
  const log = new WriteLogWriter(join(evidence, 'writes.log'));
  for (let at = 0; at < after.length; at += BLOCK_BYTES) {
    const data = after.subarray(at, at + BLOCK_BYTES);
    if (!data.equals(before.subarray(at, at + BLOCK_BYTES))) log.add({ offset: at, data });
  }
  const writes = log.entries;
  log.close();
  const submitted = { producer: 0, sizeBytes: message.length, digest: '', recipients: 1, shape: 'tiny' };
  const history: HistoryEvent[] = [
    { kind: 'submitted', atMs: 1, id: '1-0-0', ...submitted },
    { kind: 'log-position', atMs: 2, id: '1-0-0', what: 'confirmed', entries: writes },
    { kind: 'answered', atMs: 2, id: '1-0-0', outcome: 'confirmed', detail: '201' },
  ];
  writeFileSync(
    join(evidence, 'history.jsonl'),
    history.map((event) => `${JSON.stringify(event)}\n`).join(''),
  );
  const target = loadTarget(
    workspace.target(['{node}', '-e', '0', '{port}'], {
      guarantee: { faults: ['kill', 'crash-states'], duplicatesPerCrash: 0, redeliverySeconds: 6 },
      crashStates: { restore: ['{node}', '-e', RESTORE] },
    }),
  );
  const file = join(workspace.dir, 'state.tar.gz');
  await writeBundle(file, evidence, {
    target: describeTarget(target),
    seed: 1,
    requirements: ['PP-13'],
    why: 'PP-13: lost',
    summary: ['gone'],
    case: {
      kind: 'crash-state',
      state: `${writes}`,
      end: writes,
      filesystem: EXT4,
      digests: [createHash('sha256').update(message).digest('hex')],
      run: RUN,
    },
  });
  return { file, writes };
}

t.test('a replayed crash state fails again, and shrinks to one missing write', { skip }, async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const { file, writes } = await lostMessage(workspace);
  const again = await workspace.run(['replay', file, '--json', '--shrink', '--budget', '30s']);
  t.equal(again.code, 1, again.stderr);
  const result = JSON.parse(again.stdout) as ReplayResult;
  t.match(result, { kind: 'crash-state', verdict: 'fail', requirements: ['PP-13'], runs: 1 });
  t.match(result.why, /1 confirmed messages are lost in crash state .*only the recovery of test was tested/);
  t.equal(result.judged, 'recovery');
  t.match(result.recordAnew, /^node \S+main\.js explore \S+\.json --seed 1$/);
  const { prefix, kept } = parseState(result.reproducer);
  t.equal(prefix, writes, 'the cut stays the same');
  t.equal(kept.length, writes - 1, `only one of ${writes} writes has to be missing`);
  const story = result.story.join('\n');
  t.match(story, /^message 1-0-0: its \d+ bytes were written by entries [\d,-]+$/m);
  t.match(
    story,
    /^cut after \d+ requests to the disk, the last flush was entry 0; not yet flushed and gone: \d+$/m,
  );
  t.match(story, /message 1-0-0: gone$/);
  const small = await workspace.run(['replay', result.shrunkBundle ?? '', '--json']);
  t.match(JSON.parse(small.stdout), { verdict: 'fail', reproducer: result.reproducer });
});

t.test('a replay with another target says that only its recovery was tested', { skip }, async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const { file } = await lostMessage(workspace);
  // The repaired target would sync before it confirms. The disk of the bundle does not change by that.
  const repaired = workspace.target(['{node}', '-e', '0', '{port}', '--sync'], {
    name: 'repaired',
    guarantee: { faults: ['kill', 'crash-states'], duplicatesPerCrash: 0, redeliverySeconds: 6 },
    crashStates: { restore: ['{node}', '-e', RESTORE] },
  });
  const replay = await workspace.run(['replay', file, '--target', repaired, '--json']);
  t.equal(replay.code, 1, replay.stderr);
  t.match(JSON.parse(replay.stdout), {
    judged: 'recovery',
    why: /only the recovery of repaired was tested, on the disk that the recorded run had written/,
    recordAnew: new RegExp(`main\\.js explore ${repaired} --seed 1$`),
  });
  t.match(replay.stderr, /only a change of the recovery can change this verdict/);
  t.match(replay.stderr, new RegExp(`record a new run: node \\S+main\\.js explore ${repaired} --seed 1\n`));
});

t.test(
  '--shell mounts the disk of a crash state or of any log entry until `clean` unmounts it',
  { skip },
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const { file, writes } = await lostMessage(workspace);
    const at = await workspace.run(['replay', file, '--at', `${writes}`, '--shell']);
    t.equal(at.code, 0, at.stderr);
    const mounted = /is mounted on (\S+)/.exec(at.stderr)?.[1] ?? '';
    t.same(readdirSync(join(mounted, 'data')), ['1'], 'the disk before the end of the log holds the message');
    const shell = await workspace.run(['replay', file, '--shell']);
    t.match(shell.stderr, /in crash state \d+ is mounted on .*\n.*start the target's recovery by hand/);
    const crashed = /is mounted on (\S+)/.exec(shell.stderr)?.[1] ?? '';
    t.same(readdirSync(join(crashed, 'data')), [], 'the crash state does not hold the message');
    const clean = await workspace.run(['clean']);
    t.equal(clean.code, 0, clean.stderr);
    t.equal([...clean.stdout.matchAll(/1 mounts, 1 loop devices/g)].length, 2, clean.stdout);
    t.same(workspace.runs(), []);
    const printed = await workspace.run(['replay', file, '--at', '1']);
    t.equal(printed.code, 0, printed.stderr);
    t.match(printed.stderr, /^ {2}0: .*\n> 1: .*\n/m, 'the entries around the position are listed');
    t.match(printed.stderr, /^a cut here leaves (nothing )?open/m);
    t.match(await workspace.run(['replay', file, '--at', `${writes + 1}`]), {
      code: 2,
      stderr: /--at \d+: expected 0 to \d+, the entries of the log/,
    });
  },
);
