import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { defineTarget } from '../../../conformance/target-file/load.js';
import { findProgram } from '../../../faults/programs.js';
import { TestWorkspace } from '../../fixtures/kit.js';
import type { GateResult } from '../../gate/result.js';
import { newRunId, Registry } from '../../host/registry.js';
import { processRuntime } from './process-runtime.js';
import { findAccount } from './users.js';

const root = process.getuid?.() === 0 && findProgram('setpriv') !== undefined;
const skip = root ? false : 'it runs services as another user, which needs root and setpriv';

t.test('a service and the install command run as the user of the target file', { skip }, async (t) => {
  // Every user may enter the directories of this workspace.
  const dir = mkdtempSync('/var/tmp/plugpull-users-');
  chmodSync(dir, 0o755);
  const [logDir, workingDir, dataDir] = ['logs', 'scratch', 'data'].map((name) => join(dir, name)) as [
    string,
    string,
    string,
  ];
  const scratchDir = join(workingDir, 'target');
  for (const path of [logDir, workingDir, dataDir, scratchDir]) mkdirSync(path);
  const command = ['sh', '-c', 'id -un; echo "$HOME $GREETING"; touch "$0/made"', dataDir];
  const services = { server: { command, user: 'nobody' } };
  const guarantee = { faults: ['kill'], duplicatesPerCrash: 0 } as const;
  const target = defineTarget(
    {
      name: 'x',
      protocol: 'http',
      services: { server: { ...services.server, command: [...command, '{port}'] } },
      guarantee: { ...guarantee, faults: ['kill'] },
    },
    dir,
  );
  const runtime = await processRuntime.prepare(target, () => {});
  const registry = new Registry(newRunId(), join(dir, 'state'));
  t.teardown(() => registry.close());
  const deployment = runtime.deploy({
    ...{ runId: registry.runId, registry, dataDir, workingDir, scratchDir, logDir, ports: [], sink: '' },
    services: [{ name: 'server', command, user: 'nobody', env: { GREETING: 'hello' } }],
    onStarted: () => {},
    onExited: () => {},
  });
  t.teardown(async () => {
    await deployment.destroy();
    rmSync(dir, { recursive: true });
  });
  await deployment.handOver?.();
  const installed = await deployment.runCommand('install', command, 10_000);
  t.match(installed, { code: 0, stdout: /^nobody\n/ }, installed.stderr);
  const { uid } = findAccount('user', 'nobody');
  t.equal(statSync(join(dataDir, 'made')).uid, uid);
  t.equal(statSync(scratchDir).uid, uid);
  const [service] = deployment.services;
  await service?.start();
  await service?.waitForExit(10_000);
  const shown = await deployment.runCommand('verify', ['cat', join(logDir, 'server.log')], 10_000);
  t.match(shown.stdout, /^nobody\n\S+ hello\n/);
});

t.test(
  'a user that is unknown, or that may not enter the directories, is one clear line',
  { skip },
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const gate = async (user: string) => {
      const services = { server: { command: ['sleep', '1', '{port}'], user } };
      return workspace.run(['gate', workspace.target([], { services }), '--json', '--budget', '5s']);
    };
    t.match(await gate('no-such-user'), {
      code: 2,
      stderr: /services.server.user: expected a user of this machine, found no-such-user/,
    });
    // The directory of the workspace has mode 0700.
    t.match(await gate('nobody'), {
      code: 2,
      stderr: new RegExp(`services.server.user: nobody may not enter ${workspace.dir}, on the way to`),
    });
  },
);

t.test(
  '{scratch} keeps files through power cuts, and values of env have placeholders',
  { skip },
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const queue = workspace.queue('');
    const { services } = JSON.parse(readFileSync(queue, 'utf8')) as {
      services: { server: { command: string[] } };
    };
    // The install makes a file that every start needs: without it the target would not come up again.
    const start = 'test -f "$CONF" && exec "$@"';
    const target = workspace.target([], {
      install: ['sh', '-c', 'test -z "$(ls -A "$0")" && echo 1 > "$0/conf"', '{scratch}'],
      services: {
        server: {
          command: ['sh', '-c', start, 'sh', ...services.server.command],
          env: { CONF: '{scratch}/conf' },
        },
      },
      guarantee: { faults: ['kill', 'tear', 'power-cut'], duplicatesPerCrash: 0, recoverySeconds: 10 },
    });
    const flags = ['--json', '--seed', '2', '--budget', '10m', '--injections', '3'];
    const { stdout, stderr } = await workspace.run(['gate', target, '--faults', 'power-cut', ...flags]);
    const { verdict, faults } = JSON.parse(stdout) as GateResult;
    t.equal(verdict, 'pass', stderr);
    t.ok(faults.some(({ name, hit }) => name === 'power-cut' && hit > 0));
  },
);
