// A durable message queue over HTTP in a hundred lines: a start for authors, with nothing but Node.
//
// All is one log of records, each with its length and checksum. A record is synced before anybody hears of it:
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
/** Ids that nobody has leased, in order. */
const waiting = [];
/** By key: the id, and the timer that gives it back. */
const leases = new Map();
/** Who waits for a message to come. */
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

/** The whole records from the front. What follows them was torn by a crash, and never confirmed. */
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

// The log begins anew with what is alive, under another name until all of it is on the disk. So nothing is ever
// appended behind a torn record, or behind one of which the last sync said that it failed.
const log = openSync(`${path}.new`, 'w');
for (const [id, body] of bodies) write(encode(PUT, id, body));
fsyncSync(log);
renameSync(`${path}.new`, path);
// The name is on the disk only when the directory is.
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
    // What is on the disk now nobody knows, and a second sync would not tell. The next start reads what is there.
    console.error(error.message);
    process.exit(1);
  }
}

function put(id, body) {
  // Asked for again because the first answer was lost: it is stored once.
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

/** Calls back with a leased message, or with nothing after so long. */
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
  // Comes only when the request is whole: a producer that hangs up within its message has submitted nothing.
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
