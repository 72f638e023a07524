// Runs commands in the lab VM for the kit. It accepts TCP connections with one JSON object per line:
//
//   in   {"id":1,"command":["dmsetup","status"],"stdin":"base64, optional","timeoutMs":20000}
//   in   {"id":2,"command":["node","x.js"],"group":"/sys/fs/cgroup/…","env":{"PATH":"…"}}   in a control group, without a time limit
//   out  {"id":1,"code":0,"signal":null,"timedOut":false,"stdout":"…","stderr":"…"}
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
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

function answer({ id, command, stdin, timeoutMs, group, env }, reply) {
  // With a group, the shell waits for a line until it has been moved into the group. Every process of the
  // command is then in the group, so that a kill of the group reaches all of them.
  const [program, ...args] =
    group === undefined ? command : ['sh', '-c', 'read -r go; exec "$@"', 'sh', ...command];
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    detached: true,
    env: env ?? process.env,
  });
  let timedOut = false;
  const kill = () => {
    timedOut = true;
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch {}
  };
  const timer = timeoutMs === undefined ? undefined : setTimeout(kill, timeoutMs);
  const stdout = collect(child.stdout);
  const stderr = collect(child.stderr);
  child.stdin.on('error', () => {});
  if (group !== undefined && child.pid !== undefined) {
    mkdirSync(group, { recursive: true });
    writeFileSync(`${group}/cgroup.procs`, `${child.pid}`);
    child.stdin.write('\n');
  }
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
