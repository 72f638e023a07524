import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { TestWorkspace } from '../fixtures/kit.js';
import type { GateResult } from '../gate/result.js';
import { loadPlantedBugs } from './definition.js';
import { plant } from './plant.js';

const power = blocklogAvailability();

t.test(
  'a power cut shows a confirmation before the sync; a kill does not, because the page cache survives',
  { skip: power.available ? false : power.why },
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const [bug] = loadPlantedBugs(['async-msync']);
    if (bug === undefined) throw new Error('no such bug');
    const { target } = plant(bug, join(workspace.dir, 'copy'));
    const gate = async (...flags: string[]) => {
      const { stdout, stderr } = await workspace.run(['gate', target, '--json', '--seed', '1', ...flags]);
      t.not(stdout, '', stderr);
      return JSON.parse(stdout) as GateResult;
    };
    const killed = await gate('--faults', 'kill', '--injections', '6', '--budget', '10m');
    t.equal(killed.verdict, 'pass', killed.why);
    t.ok(
      killed.confirmed > 0 && killed.crashes > 0,
      `${killed.confirmed} confirmed, ${killed.crashes} crashes`,
    );
    const cut = await gate(
      '--faults',
      'power-cut',
      '--power',
      'blocklog',
      '--injections',
      '60',
      '--budget',
      '10m',
    );
    t.equal(cut.verdict, 'fail', cut.why);
    const red = cut.requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
    t.ok(red.includes('PP-1') && red.includes('PP-12'), red.join(', '));
    t.ok(cut.lost > 0, `${cut.lost} of ${cut.confirmed} confirmed messages were lost`);
  },
);
