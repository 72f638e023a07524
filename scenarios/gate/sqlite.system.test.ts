import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { straceAvailability } from '../../faults/programs.js';
import { diskFull } from '../../faults/storage/disk-full.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';
import type { ExecutedInjection } from '../round/injector.js';
import type { GateResult } from './result.js';

const QUEUE = join(packageRoot(), 'scenarios/fixtures/sqlite-queue.py');
const present = spawnSync('python3', ['-c', 'import sqlite3']).status === 0;
const skip = present ? false : 'python3 with sqlite3 is not installed';
const noStrace = straceAvailability().available ? skip : 'strace is not installed';
const diskIs = await diskFull.available();

/** Runs a gate on a queue in a SQLite database, and returns its result with the injections of all rounds. */
async function gate(
  t: { teardown(remove: () => void): void },
  [journal, synchronous]: readonly [journal: string, synchronous: string],
  fault: string,
  seed: number,
): Promise<{ result: GateResult; injections: ExecutedInjection[]; code: number | null }> {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const target = workspace.target(['python3', QUEUE, '{data}', '{port}', journal, synchronous], {
    // A message is deleted by a statement of its own. The test is about losses.
    guarantee: {
      faults: ['kill', 'tear', 'full'],
      duplicatesPerCrash: 10_000,
      redeliverySeconds: 6,
      recoverySeconds: 20,
    },
  });
  const limits = ['--injections', '4', '--budget', '10m', '--keep'];
  const args = ['gate', target, '--json', '--seed', `${seed}`, '--faults', fault, ...limits];
  const { code, stdout, stderr } = await workspace.run(args);
  if (stdout === '') throw new Error(stderr);
  const result = JSON.parse(stdout) as GateResult;
  const rounds =
    result.evidence === null ? [] : readdirSync(result.evidence).filter((name) => /^round-\d+$/.test(name));
  const injections = rounds.flatMap(
    (round) =>
      JSON.parse(
        readFileSync(join(result.evidence ?? '', round, 'injections.json'), 'utf8'),
      ) as ExecutedInjection[],
  );
  return { result, injections, code };
}

t.test(
  'a tear of a SQLite database hits only when more than its shared memory changed',
  { skip: noStrace },
  async (t) => {
    const { result, injections } = await gate(t, ['WAL', 'FULL'], 'tear', 2);
    t.not(result.verdict, 'fail', result.why);
    t.equal(result.lost, 0);
    t.ok(injections.length > 0, 'there were injections');
    for (const { hit, detail } of injections) {
      if (hit) t.match(detail, /\d in queue\.db(?:-wal)?(?:,|$)/, detail);
      t.notMatch(detail, /in queue\.db-shm(?:,|$)/, 'the shared memory is called one that is made anew');
    }
  },
);

t.test(
  'a tear finds that a SQLite database with synchronous=NORMAL loses messages',
  { skip: noStrace },
  async (t) => {
    for (let seed = 2; seed < 6; seed++) {
      const { result } = await gate(t, ['WAL', 'NORMAL'], 'tear', seed);
      if (result.verdict !== 'fail') continue;
      t.ok(
        result.requirements.some(({ id, verdict }) => id === 'PP-16' && verdict === 'fail'),
        result.why,
      );
      return;
    }
    t.fail('no seed lost a message');
  },
);

t.test(
  'a full disk hits a SQLite queue that ends without space, and its recovery is judged',
  { skip: diskIs.available ? skip : diskIs.why },
  async (t) => {
    const { result, injections, code } = await gate(t, ['DELETE', 'FULL'], 'disk-full', 2);
    t.not(code, 4, result.why);
    t.not(result.verdict, 'fail', result.why);
    t.ok(
      injections.some(({ hit, detail }) => hit && detail.endsWith('server ended by itself')),
      'it ended at a hit',
    );
    const verdicts = Object.fromEntries(
      result.requirements.map(({ id, verdict, why }) => [id, `${verdict}: ${why}`]),
    );
    t.match(verdicts, {
      'PP-8': /not-measured: nothing was rejected: the target ended at \d of \d full/,
      'PP-10': /^pass/,
      'PP-19': /^pass/,
    });
  },
);
