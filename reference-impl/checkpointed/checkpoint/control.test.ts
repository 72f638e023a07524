import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { linux } from '../../common/platform/linux.js';
import { temporaryDirectory } from '../fixtures/queue.js';
import { type ControlRecord, checkDefinition, MAX_QUEUES, parseControl, writeControl } from './control.js';

const record = (checkpoint: number): ControlRecord => ({
  checkpoint,
  generation: 3,
  queues: [{ id: 1, slot: 0, checkpoint, redo: 2 ** 40, definition: { name: 'q0', order: 'strict' } }],
});

async function written(
  t: Parameters<typeof temporaryDirectory>[0],
  records: ControlRecord[],
): Promise<Buffer> {
  const path = join(temporaryDirectory(t), 'control');
  const fd = openSync(path, 'w+');
  for (const one of records) await writeControl(linux, fd, one);
  closeSync(fd);
  return readFileSync(path);
}

t.test('the newest whole copy counts, and damage or a tear at any byte leaves the other one', async (t) => {
  const bytes = await written(t, [record(7), record(8)]);
  t.same(parseControl(bytes), record(8));
  for (const [base, rest] of [
    [0, 7],
    [64 * 1024, 8],
  ] as const) {
    const length = 16 + bytes.readUInt32LE(base + 8);
    for (let at = base; at < base + length; at += 1) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] ?? 0) ^ 0x10;
      t.equal(parseControl(damaged)?.checkpoint, rest, `byte ${at}`);
    }
    for (let torn = base; torn < base + length; torn += 1) {
      const damaged = Buffer.from(bytes);
      damaged.fill(0, torn, base + length);
      t.equal(parseControl(damaged)?.checkpoint, rest);
    }
  }
});

t.test('a file of any length is read without an error', async (t) => {
  const bytes = await written(t, [record(7), record(8)]);
  const second = 16 + bytes.readUInt32LE(64 * 1024 + 8);
  for (let length = 0; length < 300; length += 1) {
    const first = parseControl(bytes.subarray(0, length));
    t.equal(first?.checkpoint, length < 16 + bytes.readUInt32LE(8) ? undefined : 8, `${length} bytes`);
    const both = parseControl(bytes.subarray(0, 64 * 1024 + length));
    t.equal(both?.checkpoint, 8, `${length} bytes of the second copy`);
  }
  const odd = await written(t, [record(8), record(9)]);
  for (let length = 0; length < second + 10; length += 1)
    t.equal(parseControl(odd.subarray(0, 64 * 1024 + length))?.checkpoint, length < second ? 8 : 9);
});

t.test('as many queues as there may be fit into a copy', async (t) => {
  const queues = Array.from({ length: MAX_QUEUES }, (_, at) => ({
    id: 2 ** 53 - 2 - at,
    slot: 1 as const,
    checkpoint: 2 ** 53 - 2,
    redo: 2 ** 53 - 2,
    definition: { name: 'x'.repeat(64), order: 'relaxed' as const },
  }));
  const largest = { checkpoint: 2 ** 53 - 2, generation: 2 ** 32 - 1, queues };
  t.same(parseControl(await written(t, [largest])), largest);
});

t.test('names and orders are checked', async (t) => {
  for (const name of ['', 'a/b', 'ä', 'a b', 'x'.repeat(65), '\n', 'a\n'])
    t.throws(() => checkDefinition({ name, order: 'strict' }), { code: 'bad-setting' }, JSON.stringify(name));
  t.throws(() => checkDefinition({ name: 'a', order: 'other' as 'strict' }), { code: 'bad-setting' });
  t.doesNotThrow(() => checkDefinition({ name: 'A-b_c.9', order: 'relaxed' }));
});
