import { type ChildProcess, spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { until } from '../../faults/waiting.js';
import { KitProcess } from '../fixtures/kit.js';
import { allProcesses, commandLineOf } from '../host/processes.js';
import { packageRoot } from '../host/version.js';
import { nodeNetworkAvailability } from '../runtime/nodes/availability.js';

// Gates on a target with nodes, as root and as an ordinary user.

const availability = nodeNetworkAvailability();
const skip = availability.available ? false : availability.why;
const NOBODY = 65534;
const TIMEOUT_MS = 120_000;

class Place {
  readonly dir = mkdtempSync('/var/tmp/plugpull-nodes-test-');
  readonly target = join(this.dir, 'target.json');
  readonly #started: ChildProcess[] = [];

  constructor(t: { teardown(end: () => unknown): void }, uid: number) {
    chmodSync(this.dir, 0o755);
    for (const name of ['home', 'bin']) {
      mkdirSync(join(this.dir, name));
      chownSync(join(this.dir, name), uid, uid);
    }
    // Two queues that know nothing of each other: every message is received from the node that has confirmed it.
    const queue = readFileSync(join(packageRoot(), 'conformance/fixtures/queue.mjs'), 'utf8');
    writeFileSync(join(this.dir, 'queue.mjs'), queue.replace("'127.0.0.1'", "'0.0.0.0'"));
    const command = ['{node}', '{dir}/queue.mjs', '--data', '{data}', '--port', '{port}'];
    writeFileSync(
      this.target,
      JSON.stringify({
        name: 'two',
        protocol: 'http',
        nodes: ['a', 'b'],
        services: { server: { command } },
        guarantee: {
          ...{ faults: ['kill'], duplicatesPerCrash: 0, redeliverySeconds: 6, recoverySeconds: 20 },
          cluster: { tolerates: 0 },
        },
      }),
    );
    t.teardown(async () => {
      for (const child of this.#started) child.kill('SIGKILL');
      await this.start(['clean'], uid).waitForExit();
      rmSync(this.dir, { recursive: true });
    });
  }

  start(args: readonly string[], uid: number): KitProcess {
    const home = join(this.dir, 'home');
    const user = uid === 0 ? [] : ['setpriv', `--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
    const kit = [process.execPath, join(packageRoot(), 'dist/scenarios/cli/main.js'), ...args];
    const [program = '', ...rest] = [...user, ...kit];
    const child = spawn(program, rest, {
      cwd: this.dir,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: {
        ...process.env,
        ...{ HOME: home, XDG_STATE_HOME: home, PLUGPULL_STATE: join(home, 'state') },
        PATH: `${join(this.dir, 'bin')}:${process.env.PATH}`,
      },
    });
    this.#started.push(child);
    return new KitProcess(child);
  }

  /** Lists processes and files of networks that runs of this place have left. */
  left(runIds: readonly string[]): string[] {
    return [
      ...allProcesses()
        .map(({ pid }) => commandLineOf(pid))
        .filter((command) => command.includes(join(this.dir, 'queue.mjs'))),
      ...readdirSync('/dev/shm').filter((name) => runIds.some((runId) => name.includes(runId))),
    ];
  }

  runIds(): string[] {
    return readdirSync(join(this.dir, 'home/state/runs'));
  }
}

for (const [who, uid] of [
  ['root', 0],
  ['an ordinary user', NOBODY],
] as const) {
  t.test(`a gate of ${who} kills processes of nodes, and passes`, { skip }, async (t) => {
    const place = new Place(t, uid);
    const flags = ['--faults', 'kill', '--rounds', '1', '--injections', '2', '--budget', '60s', '--json'];
    const { code, stdout, stderr } = await place.start(['gate', place.target, ...flags], uid).waitForExit();
    t.equal(code, 0, stderr);
    const { verdict, warnings } = JSON.parse(stdout) as { verdict: string; warnings: string[] };
    t.equal(verdict, 'pass');
    t.same(warnings, []);
    t.match(stderr, /SIGKILL to server@/);
    t.same(place.left([]), []);
  });

  t.test(
    `a gate of ${who} that is interrupted, or killed and cleaned, leaves nothing`,
    { skip },
    async (t) => {
      const place = new Place(t, uid);
      for (const end of ['SIGINT', 'SIGKILL'] as const) {
        const kit = place.start(['gate', place.target, '--budget', '10m'], uid);
        await kit.waitForStderr(/^round 1/m);
        t.ok(await until(() => place.left([]).length >= 2, TIMEOUT_MS));
        const runIds = place.runIds();
        t.not(runIds.length, 0);
        if (end === 'SIGINT') {
          kit.child.kill('SIGINT');
          t.equal((await kit.waitForExit()).code, 130);
        } else {
          await kit.killWithWatchdog();
          t.not(place.left(runIds).length, 0);
          const { stdout, code } = await place.start(['clean', '--json'], uid).waitForExit();
          t.equal(code, 0, stdout);
          t.match(JSON.parse(stdout), { runs: [{ networks: 1, problems: [], notRemoved: [] }] });
        }
        t.same(place.left(runIds), [], end);
      }
    },
  );
}

t.test(
  'where a user may make no namespaces, nodes are not measured, with one reason',
  { skip },
  async (t) => {
    const place = new Place(t, NOBODY);
    const tool = join(place.dir, 'bin/unshare');
    writeFileSync(tool, '#!/bin/sh\necho "unshare failed: Operation not permitted" >&2\nexit 1\n');
    chmodSync(tool, 0o755);
    const { code, stderr } = await place
      .start(['gate', place.target, '--budget', '30s'], NOBODY)
      .waitForExit();
    t.equal(code, 3, stderr);
    const lines = stderr.split('\n').filter((line) => line.startsWith('plugpull:'));
    t.equal(lines.length, 1, stderr);
    t.match(
      lines[0],
      /network namespaces need root or a user namespace, which failed: .*not permitted; run as root/,
    );
  },
);
