import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { findProgram, straceAvailability } from '../../faults/programs.js';
import type { ExploreResult } from '../explore/result/result.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';
import type { GateResult } from './result.js';

const availability = blocklogAvailability();
const strace = straceAvailability();
const skip = !availability.available ? availability.why : !strace.available ? strace.why : false;

/** Writes a target file for the queue whose compactor renames a file before it is synced. */
function compactingQueue(workspace: TestWorkspace): string {
  const program = join(packageRoot(), 'scenarios/fixtures/compacting-queue.mjs');
  return workspace.target([], {
    services: {
      server: { command: ['{node}', program, 'serve', '{data}', '{port}'] },
      compactor: { command: ['{node}', program, 'compact', '{data}'] },
    },
    guarantee: { faults: ['power-cut'], duplicatesPerCrash: 0, redeliverySeconds: 6, recoverySeconds: 30 },
  });
}

const WRITTEN_BY =
  /base-\d+\.log: .*was \d+.*; seen under strace: written by compactor, never synced, renamed from base.tmp by compactor/;

t.test(
  'a gate names the file that a power cut took, its writer, its missing sync and its old name',
  { skip },
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const target = compactingQueue(workspace);
    const flags = ['--seed', '1', '--faults', 'power-cut', '--budget', '10m', '--json'];
    const { code, stdout, stderr } = await workspace.run(['gate', target, ...flags]);
    t.equal(code, 1, stderr);
    const result = JSON.parse(stdout) as GateResult;
    t.match(result.losses.join('\n'), WRITTEN_BY);
    t.match(
      result.losses.join('\n'),
      /bytes were only in the page cache: no sync of them had returned; \d+ of the lost/,
    );
    const last = result.story.at(-1);
    t.match(last, { kind: 'fault', fault: 'power-cut' }, 'the story ends with the injection that mattered');
    t.ok(last?.kind === 'fault' && last.lostFiles?.some(({ file }) => file.startsWith('base-')));
    const replayed = await workspace.run(['replay', result.bundle ?? '', '--at', '3']);
    t.equal(replayed.code, 0, replayed.stderr);
    t.match(replayed.stderr, WRITTEN_BY, 'the bundle tells it too');
  },
);

/** Upper bound of the explorations of a test. */
const MAX_SEEDS = 4;

for (const filesystem of ['ext4', 'xfs']) {
  const noXfs =
    filesystem === 'xfs' && findProgram('mkfs.xfs') === undefined ? 'mkfs.xfs is not installed' : skip;
  t.test(
    `an exploration and a replay on ${filesystem} name the files of lost messages and of writes`,
    { skip: noXfs },
    async (t) => {
      const workspace = new TestWorkspace();
      t.teardown(() => workspace.remove());
      const target = compactingQueue(workspace);
      const explore = async (seed: number) => {
        const flags = ['--budget', '40s', '--states', '4', '--fs', filesystem, '--json'];
        const { code, stdout, stderr } = await workspace.run([
          'explore',
          target,
          '--seed',
          `${seed}`,
          ...flags,
        ]);
        t.equal(code, 1, stderr);
        return JSON.parse(stdout) as ExploreResult;
      };
      const storyOf = ({ smallest }: ExploreResult) => smallest?.story.join('\n') ?? '';
      let result = await explore(1);
      // In some states the compactor had not yet made the file that the message is moved to.
      for (let seed = 2; seed <= MAX_SEEDS && !WRITTEN_BY.test(storyOf(result)); seed++)
        result = await explore(seed);
      const story = storyOf(result);
      t.match(story, /bytes were written to (seg|base)-\d+\.log by entries [\d,-]+, as base64/);
      t.match(story, WRITTEN_BY);
      const entry = Number(/ by entries (\d+)/.exec(story)?.[1]);
      const replayed = await workspace.run(['replay', result.bundle ?? '', '--at', `${entry + 1}`]);
      t.equal(replayed.code, 0, replayed.stderr);
      t.match(replayed.stderr, /write of \d+ bytes at \d+ \((seg|base)-\d+\.log\)/);
    },
  );
}
