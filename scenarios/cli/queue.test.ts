import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { loadTarget } from '../../conformance/target-file/load.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { IMPLEMENTATIONS, isBuilt } from '../host/implementations.js';
import { packageRoot } from '../host/version.js';

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

t.test('queue alone lists the implementations and what each is', async (t) => {
  const workspace = newWorkspace(t);
  for (const args of [['queue'], ['queue', '--help'], ['queue', '-h']]) {
    const { code, stdout } = await workspace.run(args);
    t.equal(code, 0);
    t.match(stdout, /^Usage: .* queue IMPLEMENTATION COMMAND …\n/);
    for (const { name, summary } of IMPLEMENTATIONS)
      t.match(stdout, new RegExp(`^  ${name} +${summary}( \\(not in this package\\))?$`, 'm'));
  }
});

t.test(
  'queue NAME runs the program of that implementation, with the command that the user types',
  async (t) => {
    const workspace = newWorkspace(t);
    let programs = 0;
    for (const implementation of IMPLEMENTATIONS) {
      const { name } = implementation;
      const { code, stdout, stderr } = await workspace.run(['queue', name, '--help']);
      if (isBuilt(implementation)) {
        programs++;
        t.equal(code, 0);
        t.match(stdout, new RegExp(` queue ${name}\\b`));
      } else {
        t.equal(code, 4);
        t.match(
          stderr,
          new RegExp(`^plugpull: \\S+reference-impl/${name}/main\\.js: not there: [^\\n]+\\n$`),
        );
      }
    }
    t.ok(programs > 0);
    const wrong = await workspace.run(['queue', 'synchronous', 'install', '--no-such-flag']);
    t.match(wrong, { code: 2, stderr: "plugpull queue: unknown option '--no-such-flag'\n" });
  },
);

t.test('a command without an implementation, and an unknown implementation, get one line', async (t) => {
  const workspace = newWorkspace(t);
  const cases: [string[], RegExp][] = [
    [
      ['install', '--queue', 'my queue'],
      /^plugpull: queue install: expected the name of an implementation .* queue synchronous install --queue 'my queue'\n$/,
    ],
    [['simulate'], / queue synchronous simulate\n$/],
    [['checkpointd', 'serve'], /^plugpull: queue checkpointd: .* \(did you mean checkpointed\?\)\n$/],
    [
      ['--queue', 'q'],
      /^plugpull: queue --queue: no such implementation, expected one of synchronous, .*\n$/,
    ],
    [[''], /^plugpull: queue : no such implementation, .*\n$/],
  ];
  for (const [args, expected] of cases) {
    const { code, stdout, stderr } = await workspace.run(['queue', ...args]);
    t.equal(code, 2, args.join(' '));
    t.equal(stdout, '');
    t.match(stderr, expected);
    t.equal(stderr.split('\n').length, 2, 'one line');
  }
});

t.test('every implementation with sources is in the list, and the files of a listed one exist', async (t) => {
  const root = packageRoot();
  const folders = readdirSync(join(root, 'reference-impl'), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && existsSync(join(root, 'reference-impl', entry.name, 'main.ts')))
    .map(({ name }) => name);
  t.ok(folders.includes('synchronous'));
  const names = IMPLEMENTATIONS.map(({ name }) => name);
  t.equal(new Set(names).size, names.length);
  for (const folder of folders) {
    const listed = IMPLEMENTATIONS.find(({ name }) => name === folder);
    t.ok(listed, `${folder} is in scenarios/host/implementations.ts`);
    if (listed === undefined) continue;
    t.equal(listed.program, `dist/reference-impl/${folder}/main.js`);
    const { services } = loadTarget(join(root, listed.targetFile));
    const commands = Object.values(services).flatMap(({ command }) => command);
    t.ok(commands.includes(`{dir}/../../${listed.program}`), 'the target file starts it');
  }
});

/** `queue` after the name of the kit, and the next word. */
const QUEUE_COMMAND = /\b(?:plugpull|plugpull --|main\.js) queue (?!…)([\w-]+)/g;

t.test('every manual names an implementation after queue', async (t) => {
  const root = packageRoot();
  const manuals = ['reference-impl', 'conformance', 'faults', 'scenarios', 'docker']
    .flatMap((folder) =>
      readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' }).map((name) =>
        join(folder, name),
      ),
    )
    .filter((name) => name.endsWith('.md'))
    .concat('README.md');
  const names = IMPLEMENTATIONS.map(({ name }) => name);
  let commands = 0;
  for (const manual of manuals)
    for (const [text, next = ''] of readFileSync(join(root, manual), 'utf8').matchAll(QUEUE_COMMAND)) {
      commands++;
      t.ok(names.includes(next), `${manual}: ${text}`);
    }
  t.ok(commands > 5, `${commands} commands`);
});
