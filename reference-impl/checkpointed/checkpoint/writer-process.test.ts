import { closeSync, existsSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { NODE_WRITER, realHost, startWriter } from './writer-process.js';

const PIECE = Buffer.alloc(64 * 1024, 'p');

/** Returns the process ids of the children of this process. */
function children(): number[] {
  return readFileSync(`/proc/${process.pid}/task/${process.pid}/children`, 'latin1')
    .split(' ')
    .filter((text) => text !== '')
    .map(Number);
}

t.test('a writer writes all bytes in order, and leaves no process behind', async (t) => {
  const path = join(t.testdir(), 'slot');
  const fd = openSync(path, 'w+');
  const before = children();
  const writer = realHost.startWriter(fd);
  const pieces = Array.from({ length: 20 }, (_, number) => Buffer.alloc(PIECE.length - number, 65 + number));
  for (const piece of pieces) await writer.write(piece);
  t.equal(await writer.end(), true);
  closeSync(fd);
  t.ok(readFileSync(path).equals(Buffer.concat(pieces)));
  t.same(children(), before);
});

t.test(
  'on a machine without cat the program of the queue writes, and reports what it cannot write',
  async (t) => {
    const path = join(t.testdir(), 'slot');
    const fd = openSync(path, 'w+');
    const writer = startWriter(fd, NODE_WRITER);
    const pieces = Array.from({ length: 20 }, (_, number) =>
      Buffer.alloc(PIECE.length - number, 65 + number),
    );
    for (const piece of pieces) await writer.write(piece);
    t.equal(await writer.end(), true);
    closeSync(fd);
    t.ok(readFileSync(path).equals(Buffer.concat(pieces)));
    const full = openSync('/dev/full', 'w');
    const failing = startWriter(full, NODE_WRITER);
    await failing.write(PIECE);
    t.equal(await failing.end(), false);
    closeSync(full);
  },
);

t.test('a program that cannot be started is a failure', async (t) => {
  const fd = openSync(join(t.testdir(), 'slot'), 'w+');
  const writer = startWriter(fd, { path: '/nonexistent/cat', args: [] });
  await t.rejects(writer.write(PIECE), /no writer can be started/);
  await t.rejects(writer.end(), /no writer can be started/);
  closeSync(fd);
});

t.test('a slot without messages is written too', async (t) => {
  const path = join(t.testdir(), 'slot');
  const fd = openSync(path, 'w+');
  t.equal(await realHost.startWriter(fd).end(), true);
  closeSync(fd);
  t.equal(readFileSync(path).length, 0);
});

t.test('a writer that is killed has not written everything', async (t) => {
  const fd = openSync(join(t.testdir(), 'slot'), 'w+');
  const before = children();
  const writer = realHost.startWriter(fd);
  await writer.write(PIECE);
  const [pid] = children().filter((child) => !before.includes(child));
  t.type(pid, 'number');
  process.kill(pid ?? 0, 'SIGKILL');
  // The pipe may take some pieces before it breaks.
  for (let number = 0; number < 100; number += 1) {
    const isTaken = await writer.write(PIECE).then(
      () => true,
      () => false,
    );
    if (!isTaken) break;
  }
  t.notOk(existsSync(`/proc/${pid}`), 'nothing of it is left, although nobody has called end');
  t.equal(await writer.end(), false);
  closeSync(fd);
});

t.test('a writer whose file cannot be written reports it', async (t) => {
  const fd = openSync('/dev/full', 'w');
  const writer = realHost.startWriter(fd);
  await writer.write(PIECE);
  t.equal(await writer.end(), false);
  closeSync(fd);
});
