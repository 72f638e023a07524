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

t.test(
  'where there is no room for disks that is told in a line, and nothing of them is left',
  { skip },
  async (t) => {
    const place = new TestWorkspace();
    const small = join(place.dir, 'small');
    mkdirSync(small);
    t.equal(spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'plugpull-test', small]).status, 0);
    t.teardown(() => {
      spawnSync('umount', ['-l', small]);
      place.remove();
    });
    const left = new Set<string>();
    const residue = {
      made: (resource: Resource) => void left.add(JSON.stringify(resource)),
      gone: (resource: Resource) => void left.delete(JSON.stringify(resource)),
    };
    const dir = join(small, 'states');
    t.throws(() => new StateWorkspace(dir, residue), {
      code: 'kit-failed',
      message: /states: the disks of crash states/,
    });
    t.notOk(existsSync(dir));
    t.same([...left], []);

    const places = new StateWorkspace(join(place.dir, 'states'), residue);
    const base = join(place.dir, 'base.img');
    writeFileSync(base, '');
    truncateSync(base, 1 << 20);
    places.makeSlot('a', base);
    t.throws(() => places.makeSlot('a', base), { code: 'kit-failed' }, 'a second one at the same place');
    places.remove();
    t.same([...left], []);
  },
);
