import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { certified, goodRun } from '../../conformance/fixtures/certified.js';
import { defineTarget } from '../../conformance/target-file/load.js';
import { writeBundle } from '../bundle/bundle.js';
import { describeTarget } from '../bundle/target.js';
import { actingIn } from '../fixtures/foreign-text.js';
import { TestWorkspace } from '../fixtures/kit.js';

/** Text with which a stranger would move the cursor, fill the clipboard, and give commands to a CI system. */
const FOREIGN = '\u001b]52;c;eA==\u0007\n::error::forged\r\n##[error]forged \u202e\u009b2J\u200b</table>';
const VISIBLE = /\\x1b\]52;c;eA==\\x07/;

function newWorkspace(t: { teardown(remove: () => void): void }): TestWorkspace {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  return workspace;
}

/** Runs a command with a file of a stranger, and checks what it prints. */
async function checkOutput(
  t: Test,
  workspace: TestWorkspace,
  args: readonly string[],
  code: number,
): Promise<void> {
  const ended = await workspace.run(args);
  t.equal(ended.code, code, ended.stderr);
  t.match(ended.stderr, VISIBLE, 'the text is there, and can be seen');
  t.same(actingIn(ended.stderr), [], args.join(' '));
  t.same(actingIn(ended.stdout), []);
}

t.test('nothing in a bundle reaches the terminal or a CI system as it is', async (t) => {
  const workspace = newWorkspace(t);
  const evidence = join(workspace.dir, 'evidence');
  mkdirSync(join(evidence, `round-1${FOREIGN.replaceAll('/', '')}`), { recursive: true });
  writeFileSync(join(evidence, 'history.jsonl'), '');
  const target = defineTarget(
    {
      name: 'mine',
      protocol: 'http',
      services: { server: { command: [`{dir}/${FOREIGN}`, '{data}', '{port}'] } },
      guarantee: { faults: ['kill'], duplicatesPerCrash: 0 },
    },
    `${workspace.dir}/${FOREIGN}`,
  );
  const file = join(workspace.dir, 'bundle.tar.gz');
  await writeBundle(file, evidence, {
    ...{ seed: 7, requirements: [FOREIGN], why: FOREIGN, summary: [FOREIGN, `  ${FOREIGN}`] },
    target: { ...describeTarget(target), requiredFiles: [`{dir}/${FOREIGN}`] },
    case: {
      ...{ kind: 'gate', runtime: 'process', power: 'blocklog', round: 1 },
      filesystem: { type: 'ext4', mountOptions: '' },
      schedule: {
        ...{ seed: 7, disk: 'any', producers: 2, depth: 1 },
        injections: [{ fault: FOREIGN, afterConfirms: 3, maxWaitMs: 100, number: 4 }],
      },
    },
  });
  await checkOutput(t, workspace, ['replay', file], 2);
  await checkOutput(t, workspace, ['replay', file, '--json'], 2);
});

t.test('nothing in a certificate or its evidence reaches the terminal as it is', async (t) => {
  const workspace = newWorkspace(t);
  const { dir, file } = certified({ process: goodRun({ fault: 'kill' }).events });
  t.teardown(() => rmSync(join(dir, '..'), { recursive: true, force: true }));
  writeFileSync(join(dir, 'evidence', FOREIGN.replaceAll('/', '')), '');
  await checkOutput(t, workspace, ['verify', file], 1);
  await checkOutput(t, workspace, ['verify', file, '--json'], 1);
});

t.test('nothing in a target file or an argument reaches the terminal as it is', async (t) => {
  const workspace = newWorkspace(t);
  const file = workspace.target(['{node}'], { [FOREIGN]: 1 });
  await checkOutput(t, workspace, ['check', file], 2);
  await checkOutput(t, workspace, ['gate', file], 2);
  await checkOutput(t, workspace, ['gate', FOREIGN], 2);
  await checkOutput(t, workspace, ['gate', `--${FOREIGN}`], 2);
});

t.test('nothing that a target prints reaches the terminal as it is', async (t) => {
  const workspace = newWorkspace(t);
  const script = `process.stderr.write(${JSON.stringify(`Error: x${FOREIGN}\n${FOREIGN}\n`)}); process.exit(7)`;
  const file = workspace.target(['{node}', '-e', script, '{port}']);
  const ended = await workspace.run(['gate', file, '--budget', '5m']);
  t.equal(ended.code, 3, ended.stderr);
  t.match(ended.stderr, /exited with code 7/);
  t.same(actingIn(ended.stderr), []);
});
