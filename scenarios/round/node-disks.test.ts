import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DEFAULT_FILESYSTEM } from '../../faults/power/filesystem.js';
import { newRunId, Registry } from '../host/registry.js';
import { NodeDisks, ONLY_NODE } from './node-disks.js';

async function disksOf(t: Test, nodes: readonly string[] | undefined) {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-disks-'));
  const registry = new Registry(newRunId(), join(dir, 'state'));
  t.teardown(() => {
    registry.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const disks = await NodeDisks.make({
    ...{ nodes, registry, dir: join(dir, 'round-1'), kind: 'any', power: 'blocklog', runtime: {} },
    filesystem: DEFAULT_FILESYSTEM,
  });
  return { dir, disks };
}

t.test('each node has a directory of its own, and what is saved has one for each node', async (t) => {
  const { dir, disks } = await disksOf(t, ['a', 'b']);
  writeFileSync(join(disks.of('a').dataDir, 'log'), 'of a');
  writeFileSync(join(disks.of('b').dataDir, 'log'), 'of b');
  await disks.joined().saveTo(join(dir, 'saved'));
  t.equal(readFileSync(join(dir, 'saved/a/log'), 'utf8'), 'of a');
  t.equal(readFileSync(join(dir, 'saved/b/log'), 'utf8'), 'of b');
});

t.test('a disk that is replaced is empty and in the same place; the others stay', async (t) => {
  const { disks } = await disksOf(t, ['a', 'b']);
  const { dataDir } = disks.of('a');
  for (const node of ['a', 'b']) writeFileSync(join(disks.of(node).dataDir, 'log'), node);
  await disks.replace('a');
  t.equal(disks.of('a').dataDir, dataDir);
  t.notOk(existsSync(join(dataDir, 'log')));
  t.ok(existsSync(join(disks.of('b').dataDir, 'log')));
  disks.remove();
  disks.remove();
  t.notOk(existsSync(dataDir), 'all are removed, and a second time does no harm');
});

t.test('a target without nodes has one disk, in the directory of the round', async (t) => {
  const { dir, disks } = await disksOf(t, undefined);
  t.equal(disks.of(ONLY_NODE).dataDir, join(dir, 'round-1/data'));
  t.equal(disks.joined(), disks.of(ONLY_NODE));
  t.throws(() => disks.of('a'), /the node a has no disk/);
});
