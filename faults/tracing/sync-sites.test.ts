import { mkdirSync, mkdtempSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Aim } from '../fault.js';
import { testRandom } from '../fixtures/fault-context.js';
import { SyncSites } from './sync-sites.js';

/** A sync: thread, path below the data directory, and perhaps the end of its line instead of ` = 0`. */
type Sync = [thread: number, path: string, result?: string];
const INJECTED = '-1 EIO (Input/output error) (INJECTED)';

function makeSites(t: Test) {
  const dataDir = realpathSync(mkdtempSync(join(tmpdir(), 'plugpull-sites-')));
  t.teardown(() => rmSync(dataDir, { recursive: true, force: true }));
  mkdirSync(join(dataDir, 'in'));
  const sites = new SyncSites();
  /** Learns from the log of one service, which confirms its first message after `before` calls. */
  const learn = (calls: readonly Sync[], before = 0) => {
    const lines = calls.map(([thread, path, result = '0']) => {
      return `${thread} fsync(3<${join(dataDir, path)}>) = ${result}\n`;
    });
    const log = { text: lines.join(''), confirmedOffset: lines.slice(0, before).join('').length };
    sites.learn([log], { dataDir });
  };
  const random = testRandom(1);
  /** Draws until nothing is drawn. */
  const drawAll = () => {
    const drawn: Aim[] = [];
    for (let aim = sites.draw(random); aim !== undefined; aim = sites.draw(random)) drawn.push(aim);
    return drawn;
  };
  return { sites, learn, drawAll };
}

const syncs = (aims: readonly Aim[]) =>
  aims.filter(({ calls }) => calls === 'sync').map(({ position }) => position);

t.test('nothing is drawn before a sync was seen', async (t) => {
  const { sites, learn, drawAll } = makeSites(t);
  t.ok(sites.isEmpty);
  t.same(drawAll(), []);
  learn([]);
  t.notOk(sites.isEmpty);
  t.same(drawAll(), []);
});

t.test('a sync that a process makes once is drawn as often as those of a busy thread', async (t) => {
  const { learn, drawAll } = makeSites(t);
  const busy = Array.from({ length: 30 }, (_, n): Sync => [7, `in/${n}-D`]);
  learn([...busy, [8, 'in/hdr.4'], [8, 'in/4-J']]);
  const drawn = syncs(drawAll());
  t.equal(drawn.length, 6, 'each of the three sites is drawn twice');
  t.ok(drawn.filter((position) => position === 2).length >= 2, 'the second sync of the other process');
});

t.test('directories come first, and a site of one thread differs from that of another one', async (t) => {
  const { learn, drawAll } = makeSites(t);
  const of = (thread: number, first: string): Sync[] => [
    [thread, `in/${first}1`],
    [thread, 'in'],
  ];
  learn([...of(7, 'data'), [7, 'in/x'], ...of(8, 'head'), ...of(9, 'data')]);
  const drawn = syncs(drawAll());
  t.equal(drawn.length, 10, 'each of five sites is drawn twice');
  t.ok(drawn.slice(0, 4).filter((position) => position === 2).length >= 3, `${drawn}`);
});

t.test('what has failed is not drawn again, and what a start syncs first is never drawn', async (t) => {
  const { learn, drawAll } = makeSites(t);
  learn(
    [
      [7, 'log'],
      [7, 'index'],
      [7, 'log'],
      [7, 'index', INJECTED],
    ],
    2,
  );
  t.same(syncs(drawAll()), [3, 3], 'the third sync of the thread is the first of the log that counts');
});

t.test('files elsewhere do not count, but their syncs count for the position', async (t) => {
  const { learn, drawAll } = makeSites(t);
  learn([
    [7, '../elsewhere'],
    [7, 'log'],
  ]);
  t.same(syncs(drawAll()), [2, 2]);
});

t.test('writes are drawn now and then, and never twice in a row', async (t) => {
  const { learn, drawAll } = makeSites(t);
  learn([...'abcdefghijklmnopqrstuvwxyz'].map((name): Sync => [7, name]));
  const kinds = drawAll().map(({ calls }) => calls);
  t.equal(kinds.filter((calls) => calls === 'sync').length, 52);
  t.ok(kinds.includes('write'));
  t.notMatch(kinds.join(' '), /write write/);
});
