import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { CrashModel } from '../../faults/write-log/model.js';
import { WriteLogWriter } from '../../faults/write-log/writer.js';
import type { Bundle } from '../bundle/bundle.js';
import type { CrashStateCase } from '../bundle/manifest.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { describeLogPosition, entriesNamedAt, openBundleDisk } from './bundle-disk.js';

const BLOCK_BYTES = 4096;
const openFiles = () => readdirSync('/proc/self/fd').length;

/** Makes an opened bundle with a disk, the log of a run and the log of a recovery, of two requests each. */
function openedBundle(t: { teardown(remove: () => void): void }): { bundle: Bundle; dir: string } {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const dir = join(workspace.dir, 'bundle');
  mkdirSync(dir);
  writeFileSync(join(dir, 'disk.img'), Buffer.alloc(4 * BLOCK_BYTES));
  for (const name of ['writes.log', 'recovery.log']) {
    const log = new WriteLogWriter(join(dir, name));
    log.add({ offset: 0, data: Buffer.alloc(BLOCK_BYTES, 'a') });
    log.add({ flush: true });
    log.close();
  }
  return { bundle: { file: 'a.tar.gz', dir } as Bundle, dir: workspace.dir };
}

/** The case of a crash state whose recovery was cut. */
const caseOf = (state: string) =>
  ({
    kind: 'crash-state',
    state,
    end: 2,
    recovery: { log: 'recovery.log', end: 2 },
  }) as unknown as CrashStateCase;

t.test('an impossible state is refused in one line, and no file stays open', async (t) => {
  const { bundle, dir } = openedBundle(t);
  const before = openFiles();
  for (const state of ['99', '2>99', '99>2', '2>nonsense']) {
    t.throws(() => openBundleDisk(bundle, caseOf(state), dir), { code: 'bad-bundle' }, state);
    t.equal(openFiles(), before, `${state}: open files`);
  }
});

t.test('the recovery of a crash state is opened on the disk that the cut of the run had left', async (t) => {
  const { bundle, dir } = openedBundle(t);
  const before = openFiles();
  const { disk, state, outer } = openBundleDisk(bundle, caseOf('2>1'), dir);
  t.match({ state, outer }, { state: { prefix: 1 }, outer: { prefix: 2 } });
  t.equal(disk.image, join(dir, 'recovery.img'));
  disk.recording.close();
  t.equal(openFiles(), before);
});

t.test(
  'a position of the log names the file of each write, and sums up what a cut there leaves open',
  async (t) => {
    const entries = [
      { lengthBytes: 0, flush: true },
      { lengthBytes: 4096, flush: false },
      { lengthBytes: 8192, flush: false },
      { lengthBytes: 0, flush: true },
    ].map((entry, index) => ({
      ...{ index, offset: 0, fua: false, discard: false, metadata: false, mark: undefined, dataAt: 0 },
      ...entry,
    }));
    const model = new CrashModel(entries);
    t.same(entriesNamedAt(model, 3), [0, 1, 2, 3]);
    const lines = describeLogPosition(model, 3, [], new Map([[1, 'seg-5.log']])).join('\n');
    t.match(lines, /1: write of 4096 bytes at 0 \(seg-5.log\)/);
    t.match(lines, /2: write of 8192 bytes at 0 \(the filesystem itself\)/);
    t.match(lines, /these writes belong to: seg-5.log \(4096 bytes\), the filesystem itself \(8192 bytes\)/);
    t.notMatch(describeLogPosition(model, 3, []).join('\n'), /filesystem/, 'nothing is named without owners');
  },
);
