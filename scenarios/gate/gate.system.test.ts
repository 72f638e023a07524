import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { FAULTS } from '../../faults/catalogue/catalogue.js';
import { straceAvailability } from '../../faults/programs.js';
import { type ExitResult, processesBelow, TestWorkspace } from '../fixtures/kit.js';
import { makeSchedule, type PlannedInjection } from '../round/schedule.js';
import type { GateResult } from './result.js';

const noStrace = straceAvailability().available ? false : 'strace is not installed';

async function gate(
  workspace: TestWorkspace,
  target: string,
  ...flags: string[]
): Promise<ExitResult & { result: GateResult }> {
  const ended = await workspace.run(['gate', target, '--json', '--seed', '7', '--budget', '10m', ...flags]);
  return { ...ended, result: JSON.parse(ended.stdout) as GateResult };
}

/** Flags that select one kind of fault, so that rounds are short. */
const QUICK = ['--faults', 'kill-one'];
/** Enough injections for a defect to show: the gate stops at the first failure. */
const MANY = ['--injections', '30'];

function failedIds(result: GateResult): string[] {
  return result.requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
}

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

t.test('a correct queue passes at faults that hit, and leaves no files or processes', async (t) => {
  const workspace = newWorkspace(t);
  const { code, result, stderr } = await gate(workspace, workspace.queue(''), '--rounds', '1');
  t.equal(code, 0, stderr);
  t.equal(result.verdict, 'pass');
  t.ok(result.confirmed > 20, `${result.confirmed} confirmed`);
  t.ok(result.crashes > 0, `${result.crashes} crashes`);
  t.ok(result.faults.some(({ hit }) => hit > 0));
  t.match(result, { lost: 0, duplicates: 0, corrupted: 0, evidence: null, seed: 7 });
  t.match(stderr, /no confirmed message is lost/);
  t.notMatch(stderr, '\u001b', 'no colours where stderr is not a terminal');
  t.same(readdirSync(join(workspace.state, 'runs')), []);
  t.same(workspace.runs(), []);
  t.same(processesBelow(workspace.dir), []);
});

t.test('a queue with a defect fails at the requirement that the defect breaks', async (t) => {
  const cases: [string, string, number][] = [
    ['resurrects', 'PP-2', 5],
    ['corrupts', 'PP-4', 5],
    ['invents', 'PP-6', 5],
    ['never-recovers', 'PP-10', 2],
  ];
  for (const [defect, requirement, recoverySeconds] of cases) {
    const workspace = newWorkspace(t);
    const { code, result } = await gate(
      workspace,
      workspace.queue(defect, ['kill'], recoverySeconds),
      ...QUICK,
      ...MANY,
    );
    t.equal(code, 1, defect);
    t.ok(failedIds(result).includes(requirement), `${defect}: ${failedIds(result)}`);
    t.match(
      result.replay,
      /^node \S+main\.js gate .* --seed \d+ --faults kill-one --injections 30 --budget 600s/,
    );
    t.ok(existsSync(join(result.evidence ?? '', 'history.jsonl')), 'the history is saved');
    t.ok(
      existsSync(join(result.evidence ?? '', `round-${result.rounds}`, 'data-at-end')),
      'the data is saved',
    );
  }
});

t.test(
  'a violation is reported with its story, and the evidence has the planned and the executed faults',
  async (t) => {
    const workspace = newWorkspace(t);
    const out = join(workspace.dir, 'evidence');
    const { result, stderr } = await gate(
      workspace,
      workspace.queue('confirms-early'),
      ...QUICK,
      '--out',
      out,
    );
    const id = result.violations[0]?.id ?? '';
    t.match(stderr, `The story of message ${id}`);
    t.same(
      result.story.filter((event) => event.kind === 'submitted').map((event) => event.id),
      [id],
    );
    t.ok(
      result.story.some(({ kind }) => kind === 'fault'),
      'the story contains the faults in between',
    );
    t.equal(result.evidence, out);
    const read = (file: string) => JSON.parse(readFileSync(join(out, 'round-1', file), 'utf8')) as unknown;
    const faults = FAULTS.filter(({ name }) => name === 'kill-one');
    const planned = makeSchedule(7, faults, faults.length);
    t.same(read('schedule.json'), planned, 'the seed determines the schedule');
    const executed = read('injections.json') as PlannedInjection[];
    t.ok(executed.length > 0);
    t.same(
      executed.map(({ fault }) => fault),
      planned.injections.map(({ fault }) => fault).slice(0, executed.length),
    );
  },
);

t.test('the gate stops after --rounds, and its replay line has the same limit', async (t) => {
  const workspace = newWorkspace(t);
  const limits = ['--rounds', '2'];
  const { code, result, stderr } = await gate(workspace, workspace.queue(''), ...QUICK, ...limits);
  t.equal(code, 0, stderr);
  t.equal(result.rounds, 2);
  t.match(result.replay, / --rounds 2 --budget 600s$/);
});

t.test('a queue that never confirms is not measured', async (t) => {
  const workspace = newWorkspace(t);
  const { code, result } = await gate(
    workspace,
    workspace.queue('never-confirms'),
    ...QUICK,
    '--injections',
    '3',
  );
  t.equal(code, 3);
  t.equal(result.verdict, 'not-measured');
  t.match(result.why, /nothing was confirmed/);
});

t.test('tear: a queue that syncs before it confirms passes', { skip: noStrace }, async (t) => {
  const workspace = newWorkspace(t);
  const { code, result, stderr } = await gate(
    workspace,
    workspace.queue('', ['tear'], 10),
    '--injections',
    '3',
  );
  t.equal(code, 0, stderr);
  t.ok((result.faults[0]?.hit ?? 0) > 0, 'at least one tear hit');
});

for (const defect of ['never-syncs', 'syncs-late']) {
  t.test(`tear: a queue that ${defect.replace('-', ' ')} loses messages`, { skip: noStrace }, async (t) => {
    const workspace = newWorkspace(t);
    const { code, result, stderr } = await gate(workspace, workspace.queue(defect, ['tear'], 10), ...MANY);
    t.equal(code, 1, stderr);
    t.ok(failedIds(result).includes('PP-1'), failedIds(result).join(' '));
  });
}
