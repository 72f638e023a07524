import t from 'tap';
import type { Availability } from '../../../faults/fault.js';
import { chooseContainers, chooseProfile } from './profiles.js';

const yes: Availability = { available: true };
const no = (why: string): Availability => ({ available: false, why, remedy: `get ${why}` });

t.test('a kernel with dm-flakey cuts the power below containers of this machine', async (t) => {
  const parts = { engine: yes, flakey: yes, lab: yes };
  t.same(chooseContainers(parts, undefined), { runtime: 'docker', power: 'flakey', notes: [] });
});

t.test(
  'without dm-flakey in the kernel, the power is cut in the lab VM and all else stays here',
  async (t) => {
    const parts = { engine: yes, flakey: no('no device mapper'), lab: yes };
    const expected = { runtime: 'docker', power: 'flakey', powerRuntime: 'vm', notes: [] };
    t.same(chooseContainers(parts, undefined), expected);
    t.same(chooseContainers(parts, 'flakey'), expected);
  },
);

t.test(
  'without a container engine, everything that can runs in the lab VM, and a note says why',
  async (t) => {
    const parts = { engine: no('no engine'), flakey: yes, lab: yes };
    const { notes, ...choice } = chooseContainers(parts, undefined);
    t.same(choice, { runtime: 'vm', power: 'flakey' });
    t.match(notes, [/no engine; get no engine/]);
  },
);

t.test('without dm-flakey anywhere, another backend cuts the power, and a note says why', async (t) => {
  const parts = { engine: yes, flakey: no('no device mapper'), lab: no('no QEMU') };
  const { notes, ...choice } = chooseContainers(parts, undefined);
  t.same(choice, { runtime: 'docker', power: undefined });
  t.match(notes, [/no device mapper; get .*no QEMU; get/]);
  t.throws(() => chooseContainers(parts, 'flakey'), {
    code: 'target-unavailable',
    message: /^--profile containers: --power flakey: .*no device mapper.*no QEMU/,
  });
});

t.test('--power blocklog needs no lab VM, and needs an engine on this machine', async (t) => {
  const parts = { engine: yes, flakey: no('no device mapper'), lab: yes };
  t.same(chooseContainers(parts, 'blocklog'), { runtime: 'docker', power: 'blocklog', notes: [] });
  t.throws(() => chooseContainers({ ...parts, engine: no('no engine') }, 'blocklog'), {
    code: 'target-unavailable',
    message: /no engine; get no engine/,
  });
});

t.test('a machine with neither an engine nor a lab VM has no profile', async (t) => {
  const parts = { engine: no('no engine'), flakey: no('no device mapper'), lab: no('no QEMU') };
  t.throws(() => chooseContainers(parts, undefined), { code: 'target-unavailable', message: /no engine/ });
});

t.test('an unknown profile and an unknown backend are wrong usage', async (t) => {
  await t.rejects(chooseProfile('container', undefined, undefined), {
    code: 'bad-usage',
    message: '--profile container: expected containers',
  });
  await t.rejects(chooseProfile('containers', 'flaky', undefined), {
    code: 'bad-usage',
    message: /^--power flaky: expected blocklog or flakey/,
  });
});
