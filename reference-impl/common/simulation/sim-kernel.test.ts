import t from 'tap';
import { SimMachine } from './machine.js';
import { SimProcess } from './sim-process.js';

const PATH = '/queue/file';
const bytes = (length: number, value: number): Buffer => Buffer.alloc(length, value);

/** Returns a machine with the empty directory /queue on the medium, and a process on it. */
function createProcess(): { machine: SimMachine; process: SimProcess; fd: number } {
  const machine = new SimMachine(() => 0);
  for (const path of ['/', '/queue'])
    machine.changeNames({ change: 'add', path, node: { kind: 'directory' } });
  machine.syncNames('/');
  const process = new SimProcess(machine, 'writer');
  const fd = process.kernel.open(PATH, 'w');
  machine.syncNames('/queue');
  return { machine, process, fd };
}

/** Returns the content of a file after power cuts with many seeds, every content once. */
function contentsAfterPowerCut(machine: SimMachine, path = PATH): string[] {
  const contents = new Set<string>();
  for (let seed = 0; seed < 200; seed += 1) {
    const file = machine.afterPowerCut(seed).file(path);
    contents.add(file ? file.cache.toString('latin1', 0, file.sizeBytes) : 'missing');
  }
  return [...contents];
}

/** Describes a content by its runs of equal bytes, such as 3x1 for three bytes of value 1. */
function runsOf(content: string): string {
  return content.replace(/(.)\1*/gs, (run) => `${run.length}x${run.charCodeAt(0)} `).trim();
}

const contentRuns = (machine: SimMachine): string[] => contentsAfterPowerCut(machine).map(runsOf);

t.test('a power cut may take an unsynced growth of a file, or leave zeros in its place', async (t) => {
  const { machine, process, fd } = createProcess();
  process.kernel.write(fd, bytes(100, 1), 0, 100, 0);
  process.kernel.fsync(fd);
  process.kernel.write(fd, bytes(50, 2), 0, 50, 100);
  t.same(contentRuns(machine).sort(), ['100x1', '100x1 50x0', '100x1 50x2']);
});

t.test('a flush for another file does not make a growth durable, and a sync of the file does', async (t) => {
  const { machine, process, fd } = createProcess();
  process.kernel.write(fd, bytes(10, 1), 0, 10, 0);
  machine.file(PATH)?.writeBack(0);
  const other = process.kernel.open('/queue/other', 'w');
  process.kernel.fsync(other);
  t.same(contentRuns(machine).sort(), ['', '10x1']);
  process.kernel.fsync(fd);
  t.same(contentRuns(machine), ['10x1']);
});

t.test('fdatasync makes the size durable that the file had when it began', async (t) => {
  const { machine, process, fd } = createProcess();
  process.kernel.write(fd, bytes(10, 1), 0, 10, 0);
  const synced = process.kernel.fdatasync(fd);
  process.kernel.write(fd, bytes(5000, 2), 0, 5000, 10);
  t.ok(contentRuns(machine).includes(''), 'before its end nothing is durable');
  for (const task of process.kernel.tasks()) task.run();
  await synced;
  const contents = contentRuns(machine);
  t.ok(contents.includes('10x1'), 'the later growth may be lost');
  t.ok(
    contents.every((content) => content.startsWith('10x1')),
    'the synced bytes stay',
  );
});

t.test(
  'after a failed sync, no later sync makes the growth durable until the file changes again',
  async (t) => {
    const { machine, process, fd } = createProcess();
    process.kernel.write(fd, bytes(10, 1), 0, 10, 0);
    machine.failingSyncs = 1;
    t.throws(() => process.kernel.fsync(fd), { code: 'EIO' });
    process.kernel.fsync(fd);
    t.same(contentRuns(machine).sort(), ['', '10x0']);
    process.kernel.write(fd, bytes(10, 2), 0, 10, 10);
    process.kernel.fsync(fd);
    t.same(contentRuns(machine), ['10x1 10x2'], 'the page was written again as a whole');
  },
);

t.test('a power cut may undo an unsynced cut of a file, also after a new growth', async (t) => {
  const { machine, process, fd } = createProcess();
  process.kernel.write(fd, bytes(8192, 1), 0, 8192, 0);
  process.kernel.fsync(fd);
  const again = process.kernel.open(PATH, 'w');
  const cut = contentRuns(machine);
  for (const content of ['', '8192x1']) t.ok(cut.includes(content), content);
  process.kernel.write(again, bytes(10, 2), 0, 10, 0);
  const contents = contentRuns(machine);
  for (const content of ['', '8192x1', '10x2', '10x1', '10x0']) t.ok(contents.includes(content), content);
  process.kernel.fsync(again);
  t.same(contentRuns(machine), ['10x2']);
  process.kernel.write(again, bytes(8000, 3), 0, 8000, 10);
  t.notOk(
    contentRuns(machine).some((content) => content.includes('x1')),
    'after a sync the old bytes are gone',
  );
});

t.test('a byte past the end of a file is zero when the file grows again', async (t) => {
  const { machine, process, fd } = createProcess();
  process.kernel.write(fd, bytes(10, 1), 0, 10, 0);
  machine.file(PATH)?.resize(4);
  process.kernel.write(fd, bytes(1, 2), 0, 1, 9);
  const read = bytes(10, 9);
  process.kernel.read(fd, read, 0, 10, 0);
  t.equal(runsOf(read.toString('latin1')), '4x1 5x0 1x2');
});

t.test('a rename over an existing name is undone whole or survives whole', async (t) => {
  const { machine, process, fd } = createProcess();
  process.kernel.write(fd, bytes(1, 1), 0, 1, 0);
  process.kernel.fsync(fd);
  const next = process.kernel.open('/queue/next', 'w');
  process.kernel.write(next, bytes(1, 2), 0, 1, 0);
  process.kernel.fsync(next);
  process.kernel.rename('/queue/next', PATH);
  t.same(contentRuns(machine).sort(), ['1x1', '1x2']);
  t.same(process.kernel.list('/queue'), ['file']);
  const directory = process.kernel.open('/queue', 'r');
  machine.failingSyncs = 1;
  t.throws(() => process.kernel.fsync(directory), { code: 'EIO' });
  t.ok(contentRuns(machine).includes('1x1'), 'a failed sync of the directory makes no name durable');
  process.kernel.fsync(directory);
  t.same(contentRuns(machine), ['1x2']);
  process.kernel.remove(PATH);
  t.same(contentsAfterPowerCut(machine).sort(), ['\u0002', 'missing']);
});

t.test('directories list their direct children, and exist once', async (t) => {
  const { process } = createProcess();
  process.kernel.makeDirectory('/queue/sub');
  process.kernel.open('/queue/sub/deep', 'w');
  t.same(process.kernel.list('/queue').sort(), ['file', 'sub']);
  t.same(process.kernel.list('/queue/sub'), ['deep']);
  t.throws(() => process.kernel.makeDirectory('/queue/sub'), { code: 'EEXIST' });
  t.throws(() => process.kernel.rename('/queue/none', '/queue/other'), { code: 'ENOENT' });
});

t.test('a read ends at the end of the file, with and without a page cache', async (t) => {
  const { machine, process, fd } = createProcess();
  process.kernel.write(fd, Buffer.concat([bytes(4096, 1), bytes(10, 2)]), 0, 4106, 0);
  process.kernel.fsync(fd);
  const reader = new SimProcess(machine.afterPowerCut(0), 'reader');
  for (const { kernel } of [process, reader]) {
    const from = kernel === process.kernel ? fd : kernel.open(PATH, 'r');
    const to = bytes(20, 9);
    t.equal(kernel.read(from, to, 2, 18, 4090), 16);
    t.equal(runsOf(to.toString('latin1')), '2x9 6x1 10x2 2x9');
    t.equal(kernel.read(from, to, 0, 20, 4106), 0);
    t.equal(kernel.read(from, to, 0, 20, 9000), 0);
  }
});
