import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
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

/** Makes disks in memory, and says which of them are there. Node `b` takes longer. */
function memoryDisks(failing: { make?: string; remove?: string }) {
  const there = new Set<string>();
  const makeDisk = async (dir: string) => {
    const node = basename(dir);
    if (node === failing.make) throw new Error(`no disk for ${node}`);
    if (node === 'b') await setTimeout(50);
    there.add(node);
    return {
      ...{ dataDir: dir, power: undefined },
      saveTo: async () => {},
      remove: () => {
        if (node === failing.remove) throw new Error(`the disk of ${node} is busy`);
        there.delete(node);
      },
    };
  };
  return { there, runtime: { makeDisk } };
}

async function makeThree(t: Test, runtime: ReturnType<typeof memoryDisks>['runtime']) {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-disks-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return NodeDisks.make({
    ...{ nodes: ['a', 'b', 'c'], dir, kind: 'any', power: 'blocklog', filesystem: DEFAULT_FILESYSTEM },
    ...{ runtime, registry: {} as Registry },
  });
}

t.test('when one disk cannot be made, none is left, also of those that take longer', async (t) => {
  const { there, runtime } = memoryDisks({ make: 'a' });
  await t.rejects(makeThree(t, runtime), /no disk for a/);
  await setTimeout(200);
  t.same([...there], []);
});

t.test('when one disk cannot be removed, the others are', async (t) => {
  const { there, runtime } = memoryDisks({ remove: 'a' });
  const disks = await makeThree(t, runtime);
  t.throws(() => disks.remove(), /the disk of a is busy/);
  t.same([...there], ['a']);
});
