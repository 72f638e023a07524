import { spawnSync } from 'node:child_process';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';
import type { GateResult } from './result.js';

const EXAMPLES = join(packageRoot(), 'conformance/examples');
/** Program that the example in each language needs. `--version` shows whether it is installed. */
const NEEDS = { python: 'python3', javascript: 'node', c: 'cc', rust: 'rustc', embedded: 'node' } as const;

const power = blocklogAvailability().available;
const present = (program: string) => spawnSync(program, ['--version']).status === 0;

async function gate(target: string, faults: string, injections: string): Promise<GateResult> {
  const workspace = new TestWorkspace();
  const args = [
    'gate',
    target,
    '--json',
    '--seed',
    '3',
    '--faults',
    faults,
    '--injections',
    injections,
    '--budget',
    '10m',
  ];
  const { stdout, stderr } = await workspace.run(args).finally(() => workspace.remove());
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as GateResult;
}

t.jobs = 2;

for (const [language, program] of Object.entries(NEEDS)) {
  const skip = present(program) ? false : `${program} is not installed`;
  t.test(`the ${language} example loses no message`, { skip }, async (t) => {
    const runs: [string, string][] = [['kill-one', '4']];
    if (power) runs.push(['power-cut', '5']);
    for (const [faults, injections] of runs) {
      const result = await gate(join(EXAMPLES, language, 'target.json'), faults, injections);
      t.not(result.verdict, 'fail', result.why);
      t.ok(result.confirmed > 10, `${result.confirmed} confirmed`);
      t.ok(result.crashes > 0, `${result.crashes} crashes by ${faults}`);
      t.match(result, { lost: 0, duplicates: 0, corrupted: 0 });
    }
  });
}

t.test(
  'the python example without its fsync fails PP-12',
  { skip: !power || !present('python3') },
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    cpSync(join(EXAMPLES, 'python'), workspace.dir, { recursive: true });
    const file = join(workspace.dir, 'queue.py');
    const line = '            self.write(record)\n            os.fsync(self.log)\n';
    const parts = readFileSync(file, 'utf8').split(line);
    t.equal(parts.length, 2, 'the source contains the fsync once');
    writeFileSync(file, parts.join('            self.write(record)\n'));
    const result = await gate(join(workspace.dir, 'target.json'), 'power-cut', '20');
    const failedIds = result.requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
    t.ok(failedIds.includes('PP-12'), `failed: ${failedIds.join(', ')}; ${result.why}`);
  },
);
