import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { packageRoot } from './version.js';

const CONSOLE = JSON.stringify(join(packageRoot(), 'dist/scenarios/host/console.js'));

/** Runs a program that prints after its reader has closed both pipes; resolves to its exit code. */
async function exitCodeWithClosedPipes(prepare: string): Promise<number | null> {
  const source = `
    import { ignoreFailedStreams, log, print } from ${CONSOLE};
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

/**
 * Runs a program that prints with its stdout closed by the reader, or on a full disk. Resolves to its exit code and the
 * lines on stderr.
 */
async function withLostStdout(
  stdout: 'closed' | 'full',
  print: string,
): Promise<{ code: number | null; lines: string[] }> {
  const source = `
    import { ignoreFailedStreams, print, printJson } from ${CONSOLE};
    ignoreFailedStreams();
    process.stdin.resume().on('end', () => {
      ${print}
      setImmediate(() => process.exit(1));
    });`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], {
    stdio: ['pipe', stdout === 'full' ? openSync('/dev/full', 'w') : 'pipe', 'pipe'],
  });
  const exited = once(child, 'exit') as Promise<[number | null]>;
  child.stdout?.destroy();
  child.stdin?.end();
  const [stderr, [code]] = await Promise.all([text(child.stderr as NodeJS.ReadableStream), exited]);
  return { code, lines: stderr.split('\n').filter(Boolean) };
}

t.test('a reader that closes its pipe ends the output, not the work', async (t) => {
  t.equal(await exitCodeWithClosedPipes('ignoreFailedStreams();'), 3, 'the program went on to its own end');
  t.equal(await exitCodeWithClosedPipes(''), 1, 'without it the closed pipe is an uncaught error');
});

t.test('a result that stdout cannot take is one warning, and the exit code stays', async (t) => {
  const results = 'printJson({ verdict: "fail" }); printJson({ verdict: "fail" });';
  t.match(await withLostStdout('closed', results), {
    code: 1,
    lines: [/^warning: stdout: the report is not complete: .*EPIPE/],
  });
  t.same(await withLostStdout('closed', 'print("a line");'), { code: 1, lines: [] }, 'as for `| head`');
  const full = await withLostStdout('full', 'print("a line"); printJson({});');
  t.equal(full.code, 1);
  t.equal(full.lines.length, 1);
  t.match(full.lines[0], /^warning: stdout: the report is not complete: .*ENOSPC/);
});
