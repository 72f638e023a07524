import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from './version.js';

const CONSOLE = JSON.stringify(join(packageRoot(), 'dist/scenarios/host/console.js'));

/** Runs a program that prints after its reader has closed both pipes; resolves to its exit code. */
async function exitCodeWithClosedPipes(prepare: string): Promise<number | null> {
  const source = `
    import { ignoreClosedPipes, log, print } from ${CONSOLE};
    ${prepare}
    process.stdin.resume().on('end', () => {
      for (let line = 0; line < 100; line++) { log('progress'); print('data'); }
      setImmediate(() => process.exit(3));
    });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', source]);
  const exited = once(child, 'exit') as Promise<[number | null]>;
  child.stdout.destroy();
  child.stderr.destroy();
  child.stdin.end();
  const [code] = await exited;
  return code;
}

t.test('a reader that closes its pipe ends the output, not the work', async (t) => {
  t.equal(await exitCodeWithClosedPipes('ignoreClosedPipes();'), 3, 'the program went on to its own end');
  t.equal(await exitCodeWithClosedPipes(''), 1, 'without it the closed pipe is an uncaught error');
});

t.test('any other error of a stream is thrown', async (t) => {
  const other = "ignoreClosedPipes(); setImmediate(() => process.stdout.emit('error', new Error('other')));";
  t.equal(await exitCodeWithClosedPipes(other), 1);
});
