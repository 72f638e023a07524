import t from 'tap';
import { confirmedHungDisks, describeHungDisk } from './dead-runs.js';

const RUN = '20300101-000000-0123abcd';
const diskOf = (owner: number, pid = 7) => ({
  ...{ what: `qemu-storage-daemon (process ${pid})`, runId: RUN, owner },
});

/** Looks at stopped disks, which are other ones at each look. */
function find(looks: ReturnType<typeof diskOf>[][], { uid = 1000, dead = [true, true] } = {}) {
  let waits = 0;
  const deaths = [...dead];
  const found = confirmedHungDisks(
    () => looks.shift() ?? [],
    () => {
      const isDead = deaths.shift() ?? true;
      return () => isDead;
    },
    async () => {
      waits++;
    },
    uid,
  );
  return found.then((disks) => ({ disks, waits }));
}

t.test('a disk is hung when a second look finds it stopped, too', async (t) => {
  t.same(await find([[]]), { disks: [], waits: 0 }, 'nothing is stopped, so there is no wait');
  t.same(await find([[diskOf(1000)], []]), { disks: [], waits: 1 }, 'it was in a cut');
  t.same(await find([[diskOf(1000)], [diskOf(1000, 8)]]), { disks: [], waits: 1 }, 'it is another disk');
  t.match(await find([[diskOf(1000)], [diskOf(1000)]]), { disks: [{ kit: 'dead', runId: RUN }], waits: 1 });
  const gone = await find([[diskOf(1000)], [diskOf(1000)]], { dead: [true, false] });
  t.same(gone.disks, [], 'the second look shows that its kit is alive');
});

t.test('only the owner and root can say that the kit of a stopped disk is dead', async (t) => {
  const twice = () => [[diskOf(0)], [diskOf(0)]];
  const [disk] = (await find(twice())).disks;
  t.match(disk, { kit: 'unknown' });
  const line = disk === undefined ? '' : describeHungDisk(disk);
  t.match(line, /^a disk of another user's run is stopped: qemu-storage-daemon \(process 7\) of run 2030/);
  t.notMatch(line, /its kit is dead:/);
  t.match((await find(twice(), { uid: 0 })).disks, [{ kit: 'dead' }]);
  const ofUser = await find([[diskOf(1000)], [diskOf(1000)]], { uid: 0 });
  t.match(ofUser.disks, [{ kit: 'dead' }]);
});
