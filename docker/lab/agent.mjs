// Runs commands in the lab VM for the kit. One TCP connection, one JSON object a line:
//
//   in   {"id":1,"command":["dmsetup","status"],"stdin":"base64, optional","timeoutMs":20000}
//   out  {"id":1,"code":0,"signal":null,"timedOut":false,"stdout":"…","stderr":"…"}
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';

const PORT = 2374;
const MOST_OUTPUT_BYTES = 8 * 2 ** 20;

createServer((socket) => {
  let rest = [];
  socket.on('error', () => {});
  socket.on('data', (chunk) => {
    let from = 0;
    for (;;) {
      const end = chunk.indexOf(10, from);
      if (end < 0) break;
      rest.push(chunk.subarray(from, end));
      const line = Buffer.concat(rest).toString('utf8');
      rest = [];
      from = end + 1;
      answer(JSON.parse(line), (result) => socket.write(`${JSON.stringify(result)}\n`));
    }
    rest.push(chunk.subarray(from));
  });
}).listen(PORT, '10.0.2.15', () => console.log('lab: agent ready'));

function answer({ id, command: [program, ...args], stdin, timeoutMs }, reply) {
  const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], detached: true });
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {}
  }, timeoutMs);
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  child.stdin.on('error', () => {});
  child.stdin.end(stdin === undefined ? undefined : Buffer.from(stdin, 'base64'));
  child.on('error', (error) => {
    clearTimeout(timer);
    reply({ id, code: 127, signal: null, timedOut, stdout: '', stderr: error.message });
  });
  child.on('close', (code, signal) => {
    clearTimeout(timer);
    if (child.pid !== undefined) reply({ id, code, signal, timedOut, stdout: stdout(), stderr: stderr() });
  });
}

function collect(stream) {
  const chunks = [];
  let sizeBytes = 0;
  stream.on('data', (chunk) => {
    if (sizeBytes < MOST_OUTPUT_BYTES) chunks.push(chunk);
    sizeBytes += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8');
}
