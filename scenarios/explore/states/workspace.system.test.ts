import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../../faults/power/blocklog-availability.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import type { Resource } from '../../host/registry.js';
import { StateWorkspace } from './workspace.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;

t.test('disks that do not fit are reported in one line, and nothing of them is left', { skip }, async (t) => {
  const workspace = new TestWorkspace();
  const small = join(workspace.dir, 'small');
  mkdirSync(small);
  t.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'plugpull-test', small]).status, 0);
  t.teardown(() => {
    spawnSync('umount', ['-l', small]);
    workspace.remove();
  });
  const left = new Set<string>();
  const registry = {
    made: (resource: Resource) => void left.add(JSON.stringify(resource)),
    gone: (resource: Resource) => void left.delete(JSON.stringify(resource)),
  };
  const dir = join(small, 'states');
  t.throws(() => new StateWorkspace(dir, registry), {
    code: 'kit-failed',
    message: /states: the disks of crash states/,
  });
  t.notOk(existsSync(dir));
  t.same([...left], []);

  const states = new StateWorkspace(join(workspace.dir, 'states'), registry);
  const base = join(workspace.dir, 'base.img');
  writeFileSync(base, '');
  truncateSync(base, 1 << 20);
  states.makeSlot('a', base);
  t.throws(() => states.makeSlot('a', base), { code: 'kit-failed' }, 'a second slot with the same name');
  states.remove();
  t.same([...left], []);
});
