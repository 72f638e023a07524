// An HTTP front for stores that run inside a process: databases and files without a server. It makes a queue of any
// store that a small JavaScript module describes, so that the kit can test the store.
//
//     node front.mjs MODULE DATA PORT [OPTION…]
//
// The module exports `open(directory, options)`, which returns an object with four functions:
//
//     put(id, bytes)   stores a message. When it returns, or its promise resolves, a power cut must not lose the message
//     get(id)          returns the bytes of a stored message
//     remove(id)       removes a message, with the same promise as `put`
//     ids()            returns the ids of all stored messages
//
// The front keeps leases in memory. It ends when a function fails: the next start asks the store what it holds.
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import { pathToFileURL } from 'node:url';

const LEASE_MS = 2000;
const [module = '', directory = '', port = '', ...options] = process.argv.slice(2);
const { open } = await import(pathToFileURL(module).href);
const store = await open(directory, options);
/** Ids of the messages that are not leased, in order. */
const waiting = [...(await store.ids())];
/** For each message that is stored or being stored, by id: the promise that it is stored. */
const stored = new Map(waiting.map((id) => [id, Promise.resolve()]));
/** Leases by key: the id of the message, and the timer that ends the lease. */
const leases = new Map();
/** Functions that wake the requests that wait for a message. */
const sleepers = new Set();

async function put(id, bytes) {
  // A producer repeats a submit if the answer was lost. Store the message only once.
  if (!stored.has(id)) stored.set(id, save(id, bytes));
  await stored.get(id);
}

async function save(id, bytes) {
  await store.put(id, bytes);
  offer(id);
}

function offer(id) {
  waiting.push(id);
  const [first] = sleepers;
  first?.();
}

/** Resolves to a leased message, or to undefined after `waitMs` without a message. */
async function lease(waitMs) {
  if (waiting.length === 0 && waitMs > 0) {
    await new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        sleepers.delete(wake);
        resolve();
      };
      const timer = setTimeout(wake, waitMs);
      sleepers.add(wake);
    });
  }
  const id = waiting.shift();
  if (id === undefined) return undefined;
  const key = randomUUID();
  const timer = setTimeout(() => leases.delete(key) && offer(id), LEASE_MS);
  leases.set(key, { id, timer });
  return { key, id, body: await store.get(id) };
}

async function consume(key) {
  const held = leases.get(key);
  if (held === undefined) return false;
  clearTimeout(held.timer);
  leases.delete(key);
  await store.remove(held.id);
  stored.delete(held.id);
  return true;
}

async function answer(request, response, body) {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  const name = decodeURIComponent(pathname.split('/')[2] ?? '');
  if (request.method === 'PUT') {
    await put(name, body);
    response.writeHead(201).end();
  } else if (request.method === 'POST') {
    const leased = await lease(Number(searchParams.get('wait') ?? 0));
    if (leased === undefined) response.writeHead(204).end();
    else response.writeHead(200, { 'message-id': leased.id, lease: leased.key }).end(leased.body);
  } else if (request.method === 'DELETE') response.writeHead((await consume(name)) ? 204 : 404).end();
  else response.writeHead(pathname === '/ready' ? 200 : 404).end();
}

createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  // The event comes only for a whole request: a producer that hangs up inside its message has submitted nothing.
  request.on('end', () => {
    answer(request, response, Buffer.concat(chunks)).catch((error) => {
      // Exit: what the store holds is unknown now.
      console.error(error);
      process.exit(1);
    });
  });
}).listen(Number(port), '127.0.0.1');
