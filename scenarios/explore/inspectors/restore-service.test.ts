import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../../faults/waiting.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import { allProcesses, environmentOf } from '../../host/processes.js';
import { packageRoot } from '../../host/version.js';
import { RestoreService } from './restore-service.js';

const FIXTURE = join(packageRoot(), 'conformance/fixtures/restore-log.mjs');
const LONG_MS = 60_000;
const SHORT_MS = 1500;

interface Fixture {
  service: RestoreService;
  /** Queue with few messages. The program misbehaves only on the queue `many`. */
  few: { queue: string };
  many: { queue: string };
  /** Returns the ids of the live processes of the service. */
  livePids(): number[];
}

/** Starts the restore program, which misbehaves as `wrong` names, and makes two queues for it. */
function setUp(t: { teardown(remove: () => void): void }, wrong: string): Fixture {
  const workspace = new TestWorkspace();
  const service = new RestoreService([process.execPath, FIXTURE, '--wrong', wrong], {
    PLUGPULL_RUN: workspace.dir,
  });
  t.teardown(() => {
    service.end();
    workspace.remove();
  });
  const queueOf = (name: string, count: number) => {
    const queue = join(workspace.dir, name);
    mkdirSync(queue);
    const lines = Array.from(
      { length: count },
      (_, id) => `${JSON.stringify({ put: `${id}`, body: 'eA==' })}\n`,
    );
    writeFileSync(join(queue, 'log'), lines.join(''));
    return { queue };
  };
  const livePids = () =>
    allProcesses()
      .map(({ pid }) => pid)
      .filter((pid) => environmentOf(pid, 'PLUGPULL_RUN') === workspace.dir);
  return { service, few: queueOf('few', 3), many: queueOf('many', 40), livePids };
}

const WRONG: readonly [string, RegExp][] = [
  ['dies', /^crashStates\.restore ended with code 7$/],
  ['babbles', /^crashStates\.restore: expected JSON, found recovered, I think$/],
  ['answers_twice', /^crashStates\.restore: expected one line for each state, found \{"live": \[\]\}$/],
  ['floods', /^crashStates\.restore: expected one line/],
  ['hangs', /^crashStates\.restore did not answer within 1\.5 s$/],
];

for (const [wrong, message] of WRONG) {
  t.test(
    `a program that ${wrong} on one state fails in that state only, and is started again for the next one`,
    async (t) => {
      const { service, few, many, livePids } = setUp(t, wrong);
      t.match(await service.ask(few, LONG_MS), { error: undefined, live: { length: 3 } });
      const timeoutMs = wrong === 'hangs' ? SHORT_MS : LONG_MS;
      t.match(await service.ask(many, timeoutMs), {
        error: message,
        live: [],
        timedOut: wrong === 'hangs' || undefined,
      });
      t.match(await service.ask(few, LONG_MS), { error: undefined, live: { length: 3 } });
      service.end();
      t.ok(
        await until(() => livePids().length === 0, LONG_MS),
        'neither the program nor a process that it started is left',
      );
    },
  );
}

t.test('an answer of another shape is reported as a wrong answer', async (t) => {
  const { service, many } = setUp(t, 'misnames');
  t.match(await service.ask(many, LONG_MS), {
    error:
      /^crashStates\.restore: expected an object with live, names, problems or error, found \{"live":\["0"/,
  });
});

t.test(
  'a program that reads nothing times out, also when the request does not fit into the pipe',
  async (t) => {
    const service = new RestoreService(['sleep', '60'], {});
    t.teardown(() => service.end());
    const startMs = performance.now();
    const longRequest = { queue: 'x'.repeat(1 << 20) };
    t.match(await service.ask(longRequest, SHORT_MS), {
      timedOut: true,
      error: /did not answer within 1\.5 s$/,
    });
    t.ok(performance.now() - startMs >= SHORT_MS);
  },
);

t.test('an answer may come in pieces, and the last one may lack its newline', async (t) => {
  const pieces = `process.stdin.once('data', () => {
    const answer = JSON.stringify({ live: [0], names: { 0: '\u00fc'.repeat(300000) } });
    process.stdout.write(answer);
  }).once('data', () => process.stdin.destroy())`;
  const service = new RestoreService([process.execPath, '-e', pieces], {});
  t.teardown(() => service.end());
  t.same(await service.ask({ queue: '.' }, LONG_MS), {
    live: ['\u00fc'.repeat(300_000)],
    problems: [],
    error: undefined,
  });
  t.match(await service.ask({ queue: '.' }, LONG_MS), { error: /ended with code 0$/ });
});

t.test('a program that does not exist is an error of the target, not of a state', async (t) => {
  const { many } = setUp(t, '');
  const missing = new RestoreService(['/nowhere/restore'], {});
  await t.rejects(missing.ask(many, LONG_MS), {
    code: 'bad-target',
    exitCode: 2,
    message: /^crashStates\.restore cannot be started: .*\/nowhere\/restore/,
  });
});

t.test('a state in which the first start has not reached the disk holds no message', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const input = `${JSON.stringify({ queue: workspace.dir })}\n`;
  const answer = execFileSync(process.execPath, [FIXTURE], { input, encoding: 'utf8' });
  t.same(JSON.parse(answer), { live: [], names: {}, problems: [] });
});
