import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { until } from '../../faults/waiting.js';
import { HeldNamespaces } from './held-namespaces.js';
import { mountNamespaceOf } from './processes.js';

const needsRoot = process.getuid?.() === 0 ? false : 'makes mount namespaces, which needs root';
const OWN = mountNamespaceOf(process.pid);

/** Starts a process with a mount namespace of its own. */
async function startInNamespace(t: Test): Promise<{ child: ChildProcess; pid: number; namespace: string }> {
  const child = spawn('unshare', ['--mount', 'sleep', '600'], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  const pid = child.pid ?? 0;
  t.ok(await until(() => mountNamespaceOf(pid) !== OWN, 20_000));
  return { child, pid, namespace: mountNamespaceOf(pid) ?? '' };
}

t.test('a held namespace keeps its number when its processes have ended', { skip: needsRoot }, async (t) => {
  const held = new HeldNamespaces();
  t.teardown(() => held.release());
  const names = new Set<string>();
  for (let turn = 0; turn < 20; turn += 1) {
    const { child, pid, namespace } = await startInNamespace(t);
    t.notOk(held.has(namespace), 'a new namespace is not taken for one that has ended');
    held.hold(pid, new Set([OWN]));
    t.ok(held.has(namespace));
    names.add(namespace);
    child.kill('SIGKILL');
    await once(child, 'exit');
    // The kernel frees the number of a namespace that is not held some milliseconds after its last process has ended.
    await sleep(50);
  }
  t.equal(names.size, 20);
});

t.test('what is excepted, and a process that has ended, are not held', { skip: needsRoot }, async (t) => {
  const held = new HeldNamespaces();
  held.hold(process.pid, new Set([OWN]));
  t.equal(held.size, 0);
  const { child, pid } = await startInNamespace(t);
  child.kill('SIGKILL');
  await once(child, 'exit');
  held.hold(pid, new Set([OWN]));
  t.equal(held.size, 0);
});
