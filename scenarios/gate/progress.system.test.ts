import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import t from 'tap';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';

/** Time that the target needs to start. Nothing else happens meanwhile. */
const START_S = 13;
/** Longest silence that the test accepts. It is longer than the 5 s of a free machine, and shorter than a start. */
const MAX_SILENCE_MS = 9000;

t.test('a gate prints what it does while its target starts slowly', async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const queue = join(packageRoot(), 'conformance/fixtures/queue.mjs');
  const script = `sleep ${START_S}; exec "$0" "$@"`;
  const target = workspace.target(
    ['sh', '-c', script, process.execPath, queue, '--data', '{data}', '--port', '{port}'],
    { guarantee: { faults: ['pause'], duplicatesPerCrash: 0, redeliverySeconds: 6 } },
  );
  const program = join(packageRoot(), 'dist/scenarios/cli/main.js');
  const child = spawn(
    process.execPath,
    [program, 'gate', target, '--injections', '1', '--budget', '5m', '--seed', '1'],
    { env: { ...process.env, PLUGPULL_STATE: workspace.state }, stdio: ['ignore', 'ignore', 'pipe'] },
  );
  const exited = once(child, 'exit');
  const lines: { atMs: number; text: string }[] = [];
  for await (const text of createInterface({ input: child.stderr }))
    lines.push({ atMs: performance.now(), text });
  await exited;
  const gaps = lines.slice(1).map(({ atMs }, index) => atMs - (lines[index]?.atMs ?? atMs));
  t.ok(
    lines.some(({ text }) => /^round 1: 0 confirmed .* s left$/.test(text)),
    lines.map(({ text }) => text).join('\n'),
  );
  t.ok(Math.max(...gaps) < MAX_SILENCE_MS, `the longest silence is ${Math.round(Math.max(...gaps))} ms`);
  t.ok(
    lines.every(({ text }) => !text.includes('\r') && !text.includes('\x1b')),
    'nothing is animated off a terminal',
  );
});
