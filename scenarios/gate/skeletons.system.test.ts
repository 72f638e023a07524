import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { TestWorkspace } from '../fixtures/kit.js';
import type { GateResult } from './result.js';

/** For each language: the program that it needs, and the sync before the answer, without which messages are lost. */
const LANGUAGES = {
  python: { program: ['python3', '--version'], file: 'queue.py', sync: '            os.fsync(self.log)\n' },
  javascript: { program: ['node', '--version'], file: 'queue.mjs', sync: '    fsyncSync(log);\n' },
  go: {
    program: ['go', 'version'],
    file: 'queue.go',
    sync: '	if err == nil {\n		err = q.log.Sync()\n	}\n',
  },
  rust: { program: ['rustc', '--version'], file: 'queue.rs', sync: '.and_then(|()| self.log.sync_all())' },
  c: {
    program: ['cc', '--version'],
    file: 'queue.c',
    sync: '    writeRecord(\'P\', id, body, size);\n    must(fsync(logFile) == 0, "fsync");\n',
    without: "    writeRecord('P', id, body, size);\n",
  },
} as const;

const power = blocklogAvailability().available;
/** The faults that hit in every gate of a correct queue. Root is needed for the power cuts. */
const FAULTS = power ? ['power-cut', 'kill'] : ['kill'];

async function gate(
  workspace: TestWorkspace,
  target: string,
  fault: string,
  injections: number,
): Promise<GateResult> {
  const args = ['gate', target, '--json', '--seed', '3', '--faults', fault];
  const { stdout, stderr } = await workspace.run([
    ...args,
    '--injections',
    `${injections}`,
    '--budget',
    '10m',
  ]);
  if (stdout === '') throw new Error(stderr);
  return JSON.parse(stdout) as GateResult;
}

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

t.jobs = 2;

for (const [language, made] of Object.entries(LANGUAGES)) {
  const [program, ...args] = made.program;
  const skip = spawnSync(program, args).status === 0 ? false : `${program} is not installed`;
  for (const services of ['one', 'several']) {
    t.test(`what init writes for ${language} and ${services} of services passes`, { skip }, async (t) => {
      const workspace = newWorkspace(t);
      const flags = ['--language', language, '--services', services, '--ci', 'none', '--out', workspace.dir];
      const written = await workspace.run(['init', ...flags]);
      t.equal(written.code, 0, written.stderr);
      for (const fault of FAULTS) {
        const result = await gate(workspace, join(workspace.dir, 'my-queue.json'), fault, 5);
        t.match(result, { lost: 0, duplicates: 0, corrupted: 0, verdict: 'pass' }, result.why);
        t.ok(result.confirmed > 10, `${result.confirmed} confirmed`);
        t.ok(
          result.faults.some(({ hit }) => hit > 0),
          `${fault} has hit`,
        );
      }
    });

    t.test(
      `what init writes for ${language} and ${services} of services fails without its fsync`,
      { skip: skip || !power },
      async (t) => {
        const workspace = newWorkspace(t);
        const flags = [
          '--language',
          language,
          '--services',
          services,
          '--ci',
          'none',
          '--out',
          workspace.dir,
        ];
        t.equal((await workspace.run(['init', ...flags])).code, 0);
        const file = join(workspace.dir, made.file);
        const parts = readFileSync(file, 'utf8').split(made.sync);
        t.equal(parts.length, 2, 'the source contains this sync once');
        writeFileSync(file, parts.join('without' in made ? made.without : ''));
        const result = await gate(workspace, join(workspace.dir, 'my-queue.json'), 'power-cut', 20);
        const failedIds = result.requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
        t.ok(failedIds.includes('PP-12'), `failed: ${failedIds.join(', ')}; ${result.why}`);
      },
    );
  }
}
