import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { recordingDirectory } from '../../faults/power/blocklog-availability.js';
import { skipReason } from '../../faults/power/fixtures/disk.js';
import { unmount } from '../../faults/power/mounts.js';
import { until } from '../../faults/waiting.js';
import { processesBelow, TestWorkspace } from '../fixtures/kit.js';

const skip = skipReason();

function newPlace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  return place;
}

/** Lists the mounts, loop devices, files and processes that are left of the kit's runs below a workspace. */
function left(place: TestWorkspace, runIds: readonly string[]): string[] {
  const ours = (text: string) => text.includes(place.dir) || runIds.some((id) => text.includes(id));
  const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n').filter(ours);
  const loops = readdirSync('/sys/block')
    .map((name) => join('/sys/block', name, 'loop/backing_file'))
    .filter(existsSync)
    .map((file) => readFileSync(file, 'utf8'))
    .filter(ours);
  const files = readdirSync(recordingDirectory() ?? '/dev/shm').filter(ours);
  return [...mounts, ...loops, ...files, ...processesBelow(place.dir).map((pid) => `process ${pid}`)];
}

async function cutting(place: TestWorkspace) {
  const kit = place.start([
    'gate',
    place.queue('', ['power-cut']),
    '--faults',
    'power-cut',
    '--budget',
    '10m',
  ]);
  await kit.waitForStderr(/^power-cut/m);
  const runIds = place.runs();
  return { kit, runIds };
}

t.test(
  'a queue that never syncs loses what it has confirmed, and the gate leaves nothing but evidence',
  { skip },
  async (t) => {
    const place = newPlace(t);
    const flags = ['--faults', 'power-cut', '--injections', '20', '--budget', '10m', '--seed', '1', '--json'];
    const { code, stdout, stderr } = await place.run([
      'gate',
      place.queue('never-syncs', ['power-cut']),
      ...flags,
    ]);
    t.equal(code, 1, stderr);
    const found = JSON.parse(stdout) as {
      faults: object[];
      evidence: string;
      requirements: { id: string; verdict: string }[];
    };
    t.match(found.faults, [{ name: 'power-cut', powerBackend: 'blocklog' }]);
    t.match(
      found.requirements.find(({ id }) => id === 'PP-12'),
      { verdict: 'fail' },
    );
    const round = readdirSync(join(found.evidence, 'round-1'));
    for (const file of ['data-at-end', 'data-at-end.stable.img', 'data-at-end.writes.log'])
      t.ok(round.includes(file), file);
    t.same(place.runs(), []);
    const runIds = readdirSync(join(place.state, 'runs'));
    t.same(left(place, runIds), []);
  },
);

t.test('a queue that syncs passes, and the gate leaves nothing', { skip }, async (t) => {
  const place = newPlace(t);
  const flags = [
    '--faults',
    'power-cut',
    '--injections',
    '4',
    '--budget',
    '10m',
    '--seed',
    '1',
    '--fs',
    'xfs',
  ];
  const { code, stderr } = await place.run(['gate', place.queue('', ['power-cut']), ...flags]);
  t.equal(code, 0, stderr);
  t.same(readdirSync(join(place.state, 'runs')), []);
  t.same(left(place, []), []);
});

for (const times of [1, 2]) {
  t.test(
    `Ctrl-C ${times === 1 ? 'once' : 'twice'} leaves no mount, loop device, daemon or file`,
    { skip },
    async (t) => {
      const place = newPlace(t);
      const { kit, runIds } = await cutting(place);
      t.not(left(place, runIds).length, 0, 'the run has mounts, files or processes before');
      for (let time = 0; time < times; time++) kit.child.kill('SIGINT');
      t.equal((await kit.waitForExit()).code, 130);
      await until(() => processesBelow(place.dir).length === 0, 5000);
      if (times === 2) await place.run(['clean']);
      t.same(left(place, runIds), []);
      t.same(place.runs(), []);
    },
  );
}

t.test('clean removes what a killed kit has left of its disk', { skip }, async (t) => {
  const place = newPlace(t);
  const { kit, runIds } = await cutting(place);
  await kit.killWithWatchdog();
  t.ok(left(place, runIds).length >= 4, 'mounts, a loop device, files, processes');
  const { code, stdout } = await place.run(['clean', '--json']);
  t.equal(code, 0, stdout);
  t.match(JSON.parse(stdout), { runs: [{ loops: 1, problems: [] }] });
  t.same(left(place, runIds), []);
  t.match(await place.run(['clean']), { code: 0, stdout: 'nothing was left\n' });
});

t.test(
  'an exploration ends and leaves nothing when the disk has no free space for the history',
  { skip },
  async (t) => {
    const place = newPlace(t);
    mkdirSync(place.state, { recursive: true });
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', place.state]);
    t.teardown(() => unmount(place.state));
    const kit = place.start(['explore', place.queue('', ['power-cut']), '--budget', '60s']);
    await until(() => place.runs().length > 0, 20_000);
    const runIds = place.runs();
    const { code, stderr } = await kit.waitForExit();
    t.equal(code, 4, stderr);
    // The history grows most. On a slow machine, a copy of the disk may be the first to find no free space.
    t.match(
      stderr.trim().split('\n').at(-1),
      /^plugpull: (\S+history\.jsonl: cannot write the history: ENOSPC|cp .*No space left on device; expected room)/,
    );
    t.ok(runIds.length > 0, 'the run was registered');
    const others = left(place, runIds).filter((line) => !line.startsWith(`tmpfs ${place.state} `));
    t.same(others, [], stderr);
  },
);

t.test('mount options that do not work are reported as a mistake of the user', { skip }, async (t) => {
  for (const command of ['gate', 'explore']) {
    const place = newPlace(t);
    const { code, stderr } = await place.run([
      command,
      place.queue('', ['power-cut']),
      '--fs',
      'ext4:nonsense=1',
    ]);
    t.equal(code, 2, stderr);
    t.match(
      stderr.trim().split('\n').at(-1),
      /--fs .*ext4:nonsense=1.* expected options that ext4 can be mounted with: .*; got "nonsense=1"/,
    );
    t.same(place.runs(), [], command);
  }
});
