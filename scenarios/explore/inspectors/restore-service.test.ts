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

interface Asked {
  service: RestoreService;
  /** Queues with few and with many messages: only the second meets the deliberate fault. */
  few: { queue: string };
  many: { queue: string };
  /** Processes of the service. */
  left(): number[];
}

function asked(t: { teardown(remove: () => void): void }, wrong: string): Asked {
  const place = new TestWorkspace();
  const service = new RestoreService([process.execPath, FIXTURE, '--wrong', wrong], {
    PLUGPULL_RUN: place.dir,
  });
  t.teardown(() => {
    service.end();
    place.remove();
  });
  const queueOf = (name: string, count: number) => {
    const queue = join(place.dir, name);
    mkdirSync(queue);
    const lines = Array.from(
      { length: count },
      (_, id) => `${JSON.stringify({ put: `${id}`, body: 'eA==' })}\n`,
    );
    writeFileSync(join(queue, 'log'), lines.join(''));
    return { queue };
  };
  const left = () =>
    allProcesses()
      .map(({ pid }) => pid)
      .filter((pid) => environmentOf(pid, 'PLUGPULL_RUN') === place.dir);
  return { service, few: queueOf('few', 3), many: queueOf('many', 40), left };
}

const WRONG: readonly [string, RegExp][] = [
  ['dies', /^crashStates\.restore ended with code 7$/],
  ['babbles', /^crashStates\.restore: expected JSON, found recovered, I think$/],
  ['answers_twice', /^crashStates\.restore: expected one line for each state, found \{"live": \[\]\}$/],
  ['floods', /^crashStates\.restore: expected one line/],
  ['hangs', /^crashStates\.restore did not answer within 1\.5 s$/],
];

for (const [wrong, message] of WRONG) {
  t.test(`a program that ${wrong} on one state has failed in that one, and is asked anew`, async (t) => {
    const { service, few, many, left } = asked(t, wrong);
    t.match(await service.ask(few, LONG_MS), { error: undefined, live: { length: 3 } });
    const mostMs = wrong === 'hangs' ? SHORT_MS : LONG_MS;
    t.match(await service.ask(many, mostMs), {
      error: message,
      live: [],
      timedOut: wrong === 'hangs' || undefined,
    });
    t.match(await service.ask(few, LONG_MS), { error: undefined, live: { length: 3 } });
    service.end();
    t.ok(
      await until(() => left().length === 0, LONG_MS),
      'nothing of it is left, nor of what it had started',
    );
  });
}

t.test('an answer of another shape is told as such', async (t) => {
  const { service, many } = asked(t, 'misnames');
  t.match(await service.ask(many, LONG_MS), {
    error:
      /^crashStates\.restore: expected an object with live, names, problems or error, found \{"live":\["0"/,
  });
});

t.test('a program that reads nothing is late, however long the request', async (t) => {
  const service = new RestoreService(['sleep', '60'], {});
  t.teardown(() => service.end());
  const startMs = performance.now();
  const far = { queue: 'x'.repeat(1 << 20) };
  t.match(await service.ask(far, SHORT_MS), { timedOut: true, error: /did not answer within 1\.5 s$/ });
  t.ok(performance.now() - startMs >= SHORT_MS);
});

t.test('an answer may come in pieces, and without an end when it is the last thing', async (t) => {
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

t.test('a program that is not there is an error of the target, not of a state', async (t) => {
  const { many } = asked(t, '');
  const none = new RestoreService(['/nowhere/restore'], {});
  await t.rejects(none.ask(many, LONG_MS), {
    code: 'bad-target',
    exitCode: 2,
    message: /^crashStates\.restore cannot be started: .*\/nowhere\/restore/,
  });
});
