import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { mountsBelow } from '../../faults/files/mountinfo.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';
import { bootViewAvailability } from '../runtime/boot/boot-view.js';

const isRoot = process.getuid?.() === 0;
const queue = join(packageRoot(), 'conformance/fixtures/queue.mjs');

/** What a hostile service does to its data directory, as shell lines. `$1` is {data}, `$2` the precious directory. */
const HOSTILE: Readonly<Record<string, string>> = {
  // Into the mount namespace of the kit, and not only its own.
  'mounts another directory below its data':
    'mkdir -p $1/x; nsenter -m -t $PPID sh -c "grep -q $1/x /proc/self/mounts || mount --bind $2 $1/x"',
  'mounts another directory below its data, in its own namespace': 'mkdir -p $1/x; mount --bind $2 $1/x',
  'makes its data immutable': 'mkdir -p $1/d; touch $1/d/f; chattr +i $1/d/f $1/d',
  'takes all rights from its data': 'mkdir -p $1/d; touch $1/d/f; chmod 0 $1/d/f $1/d',
  'puts links to another directory into its data': 'ln -sfn $2 $1/link; mkdir -p $1/d; ln -sfn $2 $1/d/link',
};

for (const [what, script] of Object.entries(HOSTILE)) {
  for (const faults of ['kill', 'power-cut']) {
    t.test(
      `a target that ${what} destroys no file of others (${faults})`,
      { skip: isRoot ? false : 'it needs root' },
      async (t) => {
        const place = new TestWorkspace();
        const precious = join(place.dir, 'precious');
        t.teardown(() => {
          spawnSync('chattr', ['-R', '-i', place.state]);
          for (const { point } of mountsBelow(place.dir).reverse()) spawnSync('umount', ['-l', point]);
          place.remove();
        });
        mkdirSync(precious);
        writeFileSync(join(precious, 'file'), 'x');
        const program = join(place.dir, 'hostile.sh');
        writeFileSync(program, `${script}\nexec ${process.execPath} ${queue} --data $1 --port $3\n`);
        const target = place.target(['sh', program, '{data}', precious, '{port}'], {
          guarantee: { faults: ['kill', 'power-cut'], duplicatesPerCrash: 0, redeliverySeconds: 6 },
        });
        const flags = ['--faults', faults, '--injections', '2', '--budget', '5m', '--seed', '1'];
        const { code, stderr } = await place.run(['gate', target, ...flags]);
        t.equal(code, faults === 'power-cut' && /not available|cannot be tried/.test(stderr) ? 3 : 0, stderr);
        t.notMatch(stderr, /^\s+at /m, 'no stack trace');
        t.equal(readFileSync(join(precious, 'file'), 'utf8'), 'x');
        t.same(mountsBelow(place.dir), []);
        if (code === 0) t.same(readdirSync(join(place.state, 'runs')), []);
        t.same(place.runs(), []);
        t.match(await place.run(['clean']), { code: 0, stdout: 'nothing was left\n' });
      },
    );
  }
}

t.test(
  'clean removes what a killed kit left, with mounts of the target, and not what is mounted',
  { skip: isRoot && bootViewAvailability().available ? false : 'it needs root and namespaces' },
  async (t) => {
    const place = new TestWorkspace();
    const precious = join(place.dir, 'precious');
    t.teardown(() => {
      for (const { point } of mountsBelow(place.dir).reverse()) spawnSync('umount', ['-l', point]);
      place.remove();
    });
    mkdirSync(precious);
    writeFileSync(join(precious, 'file'), 'x');
    const program = join(place.dir, 'hostile.sh');
    const script = HOSTILE['mounts another directory below its data'] ?? '';
    writeFileSync(program, `${script}\nexec ${process.execPath} ${queue} --data $1 --port $3\n`);
    const target = place.target(['sh', program, '{data}', precious, '{port}']);
    const kit = place.start(['gate', target, '--faults', 'kill', '--budget', '10m']);
    await kit.waitForStderr(/^kill/m);
    kit.child.kill('SIGKILL');
    await kit.waitForExit();
    t.ok(mountsBelow(place.state).length > 0, 'the mount outlives the kit');
    const { code, stdout } = await place.run(['clean']);
    t.equal(code, 0, stdout);
    t.same(mountsBelow(place.state), []);
    t.same(readdirSync(join(place.state, 'runs')), []);
    t.ok(existsSync(join(precious, 'file')));
  },
);
