// A durable message queue over HTTP in 150 lines: a starting point for authors. It needs nothing but Node.
//
// The queue is one log of records. Each record has its length and a checksum, and is synced before it is
// answered:
//
//     type 1 byte ('P' put, 'D' done), length of id 2, length of body 4, id, body, CRC-32 of all that (big-endian)
import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { crc32 } from 'node:zlib';

const HEAD_BYTES = 7;
const SUM_BYTES = 4;
const LEASE_MS = 2000;
const [PUT, DONE] = Buffer.from('PD');

const { values } = parseArgs({ options: { data: { type: 'string' }, port: { type: 'string' } } });
const path = join(values.data, 'log');
/** Bodies by id. */
const bodies = new Map();
/** Ids of messages that are not leased, in order. */
const waiting = [];
/** Leases by key: the id of the message, and the timer that ends the lease. */
const leases = new Map();
/** Functions that wake the requests that wait for a message. */
const sleepers = new Set();

function encode(kind, id, body = Buffer.alloc(0)) {
  const name = Buffer.from(id);
  const head = Buffer.alloc(HEAD_BYTES);
  head.writeUInt8(kind);
  head.writeUInt16BE(name.length, 1);
  head.writeUInt32BE(body.length, 3);
  const record = Buffer.concat([head, name, body, Buffer.alloc(SUM_BYTES)]);
  record.writeUInt32BE(crc32(record.subarray(0, -SUM_BYTES)), record.length - SUM_BYTES);
  return record;
}

/**
 * Yields the whole records from the start of the log. The bytes behind them were torn by a crash and never
 * confirmed.
 */
function* decode(bytes) {
  for (let at = 0; at + HEAD_BYTES + SUM_BYTES <= bytes.length; ) {
    const middle = at + HEAD_BYTES + bytes.readUInt16BE(at + 1);
    const end = middle + bytes.readUInt32BE(at + 3);
    if (end + SUM_BYTES > bytes.length || crc32(bytes.subarray(at, end)) !== bytes.readUInt32BE(end)) return;
    yield {
      kind: bytes[at],
      id: bytes.toString('utf8', at + HEAD_BYTES, middle),
      body: bytes.subarray(middle, end),
    };
    at = end + SUM_BYTES;
  }
}

for (const { kind, id, body } of existsSync(path) ? decode(readFileSync(path)) : []) {
  if (kind === PUT) bodies.set(id, body);
  else bodies.delete(id);
}
waiting.push(...bodies.keys());

// Write the live messages to a new log, under another name until all of it is on the disk. Then no record is ever
// appended behind a torn record, or behind a record whose sync failed.
const log = openSync(`${path}.new`, 'w');
for (const [id, body] of bodies) write(encode(PUT, id, body));
fsyncSync(log);
renameSync(`${path}.new`, path);
// Sync the directory: without it the new name could be lost in a power cut.
const directory = openSync(values.data, 'r');
fsyncSync(directory);
closeSync(directory);

function write(record) {
  for (let done = 0; done < record.length; ) done += writeSync(log, record, done);
}

function append(record) {
  try {
    write(record);
    fsyncSync(log);
  } catch (error) {
    // Exit: the content of the disk is unknown now, and a second sync could succeed without writing the data.
    // The next start reads the log from the disk.
    console.error(error.message);
    process.exit(1);
  }
}

function put(id, body) {
  // A producer repeats a submit if the answer was lost. Store the message only once.
  if (bodies.has(id)) return;
  append(encode(PUT, id, body));
  bodies.set(id, body);
  offer(id);
}

function offer(id) {
  waiting.push(id);
  const [first] = sleepers;
  first?.();
}

/** Calls back with a leased message, or with undefined after `waitMs` without a message. */
function lease(waitMs, answer) {
  const id = waiting.shift();
  if (id === undefined && waitMs > 0) {
    const again = () => {
      clearTimeout(timer);
      sleepers.delete(again);
      lease(0, answer);
    };
    const timer = setTimeout(again, waitMs);
    sleepers.add(again);
  } else if (id === undefined) answer(undefined);
  else {
    const key = randomUUID();
    const timer = setTimeout(() => leases.delete(key) && offer(id), LEASE_MS);
    leases.set(key, { id, timer });
    answer({ key, id, body: bodies.get(id) });
  }
}

function consume(key) {
  const held = leases.get(key);
  if (held === undefined) return false;
  append(encode(DONE, held.id));
  clearTimeout(held.timer);
  leases.delete(key);
  bodies.delete(held.id);
  return true;
}

const server = createServer((request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://localhost');
  const name = decodeURIComponent(pathname.split('/')[2] ?? '');
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  // The event comes only for a whole request: a producer that hangs up inside its message has submitted nothing.
  request.on('end', () => {
    if (request.method === 'PUT') {
      put(name, Buffer.concat(chunks));
      response.writeHead(201).end();
    } else if (request.method === 'POST') {
      lease(Number(searchParams.get('wait') ?? 0), (leased) => {
        if (leased === undefined) response.writeHead(204).end();
        else response.writeHead(200, { 'message-id': leased.id, lease: leased.key }).end(leased.body);
      });
    } else if (request.method === 'DELETE') response.writeHead(consume(name) ? 204 : 404).end();
    else response.writeHead(pathname === '/ready' ? 200 : 404).end();
  });
});
server.listen(Number(values.port), '127.0.0.1');
