import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { defineTarget } from '../../conformance/target-file/load.js';
import type { DeploymentPlan } from '../runtime/runtime.js';
import { type LaunchPlan, launch } from './launch.js';

/** Launches a target on two nodes, of which the second cannot be deployed. Returns what was undone, in no order. */
async function launchHalf(dir: string, close: () => Promise<void>) {
  const undone: string[] = [];
  const target = defineTarget(
    {
      name: 'x',
      protocol: 'http',
      nodes: ['a', 'b'],
      services: { server: { command: ['/bin/true', '{port}'] } },
      guarantee: { faults: ['kill'], duplicatesPerCrash: 0, cluster: { tolerates: 0 } },
    },
    dir,
  );
  const network = {
    addresses: new Map([
      ['a', '10.0.0.1'],
      ['b', '10.0.0.2'],
    ]),
    remove: () => void undone.push('network'),
  };
  const launching = launch({
    ...{ target, dir, dataDir: dir, registry: { runId: 'run' }, signal: new AbortController().signal },
    protocol: {
      receive: async () => ({
        sink: '',
        close: async () => {
          undone.push('receiver');
          await close();
        },
      }),
    },
    runtime: {
      pathsFor: () => ({ dir, node: process.execPath }),
      makeNetwork: async () => network,
      deploy: ({ node }: DeploymentPlan) => {
        if (node?.name === 'b') throw new Error('no room for b');
        return { services: [], destroy: async () => void undone.push(`deployment of ${node?.name}`) };
      },
    },
  } as unknown as LaunchPlan);
  return { launching, undone };
}

t.test('a launch that fails half-way leaves nothing, and its error is the first one', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-launch-test-'));
  t.teardown(() => rmSync(dir, { recursive: true }));
  for (const close of [async () => {}, async () => Promise.reject(new Error('the socket is gone'))]) {
    const { launching, undone } = await launchHalf(dir, close);
    await t.rejects(launching, /no room for b/);
    t.same(undone.sort(), ['deployment of a', 'network', 'receiver']);
  }
});
