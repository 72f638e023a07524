// The front of a queue of two services: it accepts the requests and passes each to the store, which is queue.mjs.
// It keeps nothing, so a crash of it loses nothing. Only an answer of the store confirms a message.
import { createServer, request } from 'node:http';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { port: { type: 'string' }, store: { type: 'string' } } });

function relay(incoming, outgoing, body) {
  const toStore = request({
    host: '127.0.0.1',
    port: Number(values.store),
    method: incoming.method,
    path: incoming.url,
    headers: { 'content-length': body.length },
    // Open a new connection for each request: a crash of the store breaks its old connections.
    agent: false,
  });
  toStore.on('response', (answer) => {
    const chunks = [];
    answer.on('data', (chunk) => chunks.push(chunk));
    // The event comes only for a whole answer.
    answer.on('end', () => {
      const { 'message-id': id, lease } = answer.headers;
      outgoing.writeHead(answer.statusCode, lease === undefined ? {} : { 'message-id': id, lease });
      outgoing.end(Buffer.concat(chunks));
    });
    answer.on('error', () => outgoing.destroy());
  });
  toStore.on('error', (error) => {
    // The store got nothing. This is a clear no: the producer may send the message elsewhere.
    if (error.code === 'ECONNREFUSED') outgoing.writeHead(503).end();
    // The store may have stored the message before it crashed. Say neither yes nor no.
    else outgoing.destroy();
  });
  toStore.end(body);
}

const server = createServer((incoming, outgoing) => {
  const chunks = [];
  incoming.on('data', (chunk) => chunks.push(chunk));
  // The event comes only for a whole request: the store must not get a part of a message.
  incoming.on('end', () => relay(incoming, outgoing, Buffer.concat(chunks)));
});
server.listen(Number(values.port), '127.0.0.1');
