import t from 'tap';
import type { Deployment } from '../runtime.js';
import { joinDeployments } from './join-deployments.js';

/** A deployment that writes what is called into `log`. */
function deploymentOf(node: string, log: string[], failure?: string): Deployment {
  const fail = async (what: string) => {
    log.push(`${what} ${node}`);
    if (failure !== undefined) throw new Error(failure);
  };
  return {
    services: [],
    runCommand: async (name) => {
      log.push(`${name} on ${node}`);
      return { code: 0, signal: null, timedOut: false, stdout: '', stderr: '' };
    },
    reboot: async () => (node === 'b' ? 'no namespaces' : undefined),
    stop: () => fail('stop'),
    destroy: () => fail('destroy'),
    destroyNow: () => void log.push(`destroy now ${node}`),
  };
}

t.test(
  'what is done to the whole target is done on every node, and a command runs on the first',
  async (t) => {
    const log: string[] = [];
    const joined = joinDeployments(['a', 'b'].map((node) => ({ node, deployment: deploymentOf(node, log) })));
    await joined.runCommand('nudge', ['true'], 1000);
    await joined.stop(1);
    joined.destroyNow();
    t.strictSame(log, ['nudge on a', 'stop a', 'stop b', 'destroy now a', 'destroy now b']);
    t.equal(await joined.reboot(), 'no namespaces', 'the reason of any node counts');
  },
);

t.test('a node that cannot be destroyed keeps no other one alive, and is reported', async (t) => {
  const log: string[] = [];
  const joined = joinDeployments([
    { node: 'a', deployment: deploymentOf('a', log, 'stuck') },
    { node: 'b', deployment: deploymentOf('b', log) },
  ]);
  await t.rejects(joined.destroy(), /stuck/);
  t.strictSame(log, ['destroy a', 'destroy b']);
});
