import { connect } from 'node:net';
import { argv } from 'node:process';
import { requestOf } from '../fixtures/raw-http.js';

// Sends PUTs of 1 KiB over 64 connections to a front, and prints the rate: `load.js PORT [SECONDS]`.
const [, , port = '0', seconds = '10'] = argv;
const CONNECTIONS = 64;
const BODY = Buffer.alloc(1024, 'x');

let answers = 0;
let wrong = 0;
let id = 0;
for (let at = 0; at < CONNECTIONS; at += 1) {
  const socket = connect({ host: '127.0.0.1', port: Number(port), noDelay: true });
  const next = () => {
    id += 1;
    socket.write(requestOf('PUT', `/messages/m-${id}`, BODY));
  };
  socket.on('connect', next);
  // An answer of 201 has no body and comes in one piece.
  socket.on('data', (chunk: Buffer) => {
    if (chunk.toString('latin1', 9, 12) === '201') answers += 1;
    else wrong += 1;
    next();
  });
}
const startedMs = performance.now();
setTimeout(() => {
  const perSecond = (answers * 1000) / (performance.now() - startedMs);
  console.log(`${Math.round(perSecond)} PUT/s, ${wrong} other answers`);
  process.exit(wrong === 0 ? 0 : 1);
}, Number(seconds) * 1000);
