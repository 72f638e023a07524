import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const root = fileURLToPath(new URL('../../..', import.meta.url));

function directory(t: { teardown(remove: () => void): void }): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-setup-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text, { mode: 0o755 });
}

t.test('a source that changes while the compiler runs is compiled by the next build', async (t) => {
  const dir = directory(t);
  const source = join(dir, 'faults', 'one.ts');
  for (const name of ['reference-impl', 'conformance', 'faults', 'scenarios', 'docker'])
    write(join(dir, name, 'one.ts'), '');
  write(join(dir, 'tsconfig.json'), '{}');
  write(join(dir, 'scenarios/report/viewer/make-viewer.ts'), '');
  write(join(dir, 'dist/scenarios/report/viewer/make-viewer.js'), '');
  const runs = join(dir, 'runs');
  // As an editor that saves a file in the middle of the compilation.
  write(
    join(dir, 'node_modules/typescript/bin/tsc'),
    `const { appendFileSync, existsSync, writeFileSync } = require('node:fs');
     if (!existsSync(${JSON.stringify(runs)})) writeFileSync(${JSON.stringify(source)}, 'changed');
     appendFileSync(${JSON.stringify(runs)}, 'x');`,
  );
  const past = new Date(Date.now() - 60_000);
  const parts = readdirSync(dir, { recursive: true, encoding: 'utf8' });
  for (const part of parts.filter((name) => !/^(dist|node_modules)/.test(name)))
    utimesSync(join(dir, part), past, past);
  const { build } = (await import(join(root, 'docker/setup/build.mjs'))) as {
    build(context: { root: string; progress: unknown; onStart(): void }): Promise<void>;
  };
  const progress = {
    during: (_line: string, _describe: unknown, work: () => Promise<unknown>) => work(),
  };
  for (let time = 0; time < 3; time++) await build({ root: dir, progress, onStart: () => {} });
  t.equal(readFileSync(runs, 'utf8'), 'xx', 'built again once, and then not any more');
});

t.test('an interrupted set-up keeps its lock while a program of it still runs', async (t) => {
  const dir = directory(t);
  cpSync(join(root, 'docker/setup'), join(dir, 'docker/setup'), { recursive: true });
  for (const name of ['setup.mjs', 'start-engine.mjs'])
    cpSync(join(root, 'docker', name), join(dir, 'docker', name));
  write(join(dir, 'tsconfig.json'), '{}');
  write(join(dir, 'package-lock.json'), '{"packages":{"":{}}}');
  const started = join(dir, 'npm-runs');
  write(join(dir, 'bin/npm'), `#!/bin/sh\ntrap '' TERM\necho $$ > ${started}\nexec sleep 600\n`);
  const { CI: _ci, ...env } = process.env;
  const setUp = spawn(process.execPath, [join(dir, 'docker/setup.mjs'), '--quiet'], {
    env: { ...env, PATH: `${join(dir, 'bin')}:${env.PATH ?? ''}` },
    stdio: 'ignore',
  });
  t.teardown(() => setUp.kill('SIGKILL'));
  while (!existsSync(started) || readFileSync(started, 'utf8') === '')
    await new Promise((next) => setTimeout(next, 10));
  const npm = Number(readFileSync(started, 'utf8'));
  t.teardown(() => process.kill(npm, 'SIGKILL'));
  setUp.kill('SIGTERM');
  t.same(await once(setUp, 'exit'), [143, null]);
  t.match(readFileSync(join(dir, '.plugpull/setup.lock'), 'utf8'), `"pid":${npm}`);
});

t.test('a scope of engines that does not exist installs nothing', async (t) => {
  const { CI: _ci, ...env } = process.env;
  const given = { ...env, PLUGPULL_NO_INSTALL: '1' };
  const setUp = spawn(process.execPath, [join(root, 'docker/setup.mjs'), '--engines', 'some'], {
    env: given,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const [stderr, [code]] = await Promise.all([text(setUp.stderr), once(setUp, 'exit')]);
  t.equal(code, 2);
  t.equal(stderr, 'plugpull setup: --engines some: expected gate or all\n');
});
