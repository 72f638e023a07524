import { connect } from 'node:net';
import { ATTACKS } from './attacks.js';

/**
 * Keeps a number of sessions of one attack open for a time, and then prints its counts as one line of JSON. It is a
 * process of its own, so that its work does not delay the good mail that is measured. The sessions come from many
 * addresses of the loopback interface.
 *
 * Arguments: name of the attack, port, number of sessions, seconds.
 */
const [kind = '', port = '', sessions = '', seconds = ''] = process.argv.slice(2);
const attack = ATTACKS[kind];
if (attack === undefined) throw new Error(`there is no attack ${kind}`);

const ADDRESSES = 250;
/** Pause before a session that was ended is opened again. It bounds the number of connections of a run. */
const RECONNECT_MS = 100;
const counts = { connections: 0, failed: 0, megabytes: 0, replies: {} as Record<string, number> };
const endMs = performance.now() + Number(seconds) * 1000;

function run(index: number): void {
  if (performance.now() >= endMs) return;
  counts.connections += 1;
  const socket = connect({
    host: '127.0.0.1',
    port: Number(port),
    localAddress: `127.1.0.${1 + (index % ADDRESSES)}`,
    allowHalfOpen: true,
  });
  socket.on('data', (chunk: Buffer) => {
    for (const [, code = ''] of chunk.toString('latin1').matchAll(/(?:^|\n)([2-5]\d\d) /g))
      counts.replies[code] = (counts.replies[code] ?? 0) + 1;
  });
  socket.on('connect', () => attack?.begin(socket));
  socket.on('end', () => socket.destroy());
  socket.on('error', () => {
    if (socket.bytesRead === 0) counts.failed += 1;
  });
  socket.on('close', () => {
    counts.megabytes += socket.bytesWritten / 1e6;
    setTimeout(() => run(index), RECONNECT_MS);
  });
  setTimeout(() => socket.destroy(), endMs - performance.now());
}

for (let index = 0; index < Number(sessions); index += 1) run(index);
setTimeout(
  () => {
    process.stdout.write(`${JSON.stringify({ ...counts, megabytes: Math.round(counts.megabytes) })}\n`, () =>
      process.exit(),
    );
  },
  Number(seconds) * 1000 + 500,
);
