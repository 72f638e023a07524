import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { testDirectories } from '../fixtures/fault-context.js';
import { straceAvailability } from '../programs.js';
import { readTrace, TRACED_CALLS, type Trace } from './file-trace.js';
import { straceCommand } from './strace.js';

/** Runs a real program under a real strace, and reads the log. */
function traceOf(
  t: { teardown(remove: () => void): void },
  source: string,
  withoutIoUring = true,
): { trace: Trace; dataDir: string } {
  const { dataDir, scratchDir, remove } = testDirectories();
  t.teardown(remove);
  const program = join(scratchDir, 'program.mjs');
  const log = join(scratchDir, 'log');
  writeFileSync(program, `import fs from 'node:fs';\nconst dir = ${JSON.stringify(dataDir)};\n${source}`);
  const [, ...flags] = straceCommand({ log, calls: TRACED_CALLS, showPaths: true, withoutIoUring });
  execFileSync('strace', [...flags, process.execPath, program], { stdio: 'pipe' });
  return { trace: readTrace(readFileSync(log, 'latin1')), dataDir };
}

const skip = straceAvailability().available ? false : 'strace is not installed';

t.test('writes have their offsets, and a sync covers the whole file', { skip }, async (t) => {
  const { trace, dataDir } = traceOf(
    t,
    `const a = fs.openSync(dir + '/a, >é', 'a');
     fs.writeSync(a, 'hello');
     fs.fsyncSync(a);
     const b = fs.openSync(dir + '/b', 'w');
     fs.writeSync(b, 'abc');
     fs.writeSync(b, 'defg');
     fs.writeSync(b, 'xy', 100);`,
  );
  t.match(trace.files.get(join(dataDir, 'a, >é')), {
    mapped: false,
    events: [
      { kind: 'write', start: 'append', length: 5 },
      { kind: 'sync', start: 0, end: Number.POSITIVE_INFINITY },
    ],
  });
  t.match(trace.files.get(join(dataDir, 'b'))?.events.slice(-3), [
    { kind: 'write', start: 0, length: 3 },
    { kind: 'write', start: 3, length: 4 },
    { kind: 'write', start: 100, length: 2 },
  ]);
  t.equal(trace.inconclusiveReason, '');
});

t.test('syncs of other threads are seen, and a renamed file keeps its syncs', { skip }, async (t) => {
  const { trace, dataDir } = traceOf(
    t,
    `const file = await fs.promises.open(dir + '/new', 'w');
     await file.write('x');
     await file.sync();
     await fs.promises.rename(dir + '/new', dir + '/kept');
     await file.datasync();`,
  );
  t.equal(trace.files.has(join(dataDir, 'new')), false);
  const syncs = trace.files.get(join(dataDir, 'kept'))?.events.filter(({ kind }) => kind === 'sync');
  t.equal(syncs?.length, 2);
});

t.test('a write through O_SYNC is a sync of its own range', { skip }, async (t) => {
  const { trace, dataDir } = traceOf(
    t,
    `const file = fs.openSync(dir + '/s', fs.constants.O_WRONLY | fs.constants.O_CREAT | fs.constants.O_DSYNC);
     fs.writeSync(file, 'abc', 10);`,
  );
  t.match(trace.files.get(join(dataDir, 's'))?.events, [
    { kind: 'write', start: 10, length: 3 },
    { kind: 'sync', start: 10, end: 13 },
  ]);
});

t.test('a new file does not inherit the syncs of an unlinked file of the same name', { skip }, async (t) => {
  const { trace, dataDir } = traceOf(
    t,
    `fs.writeFileSync(dir + '/a', 'x', { flush: true });
     fs.unlinkSync(dir + '/a');
     fs.appendFileSync(dir + '/a', 'y');`,
  );
  t.same(
    trace.files.get(join(dataDir, 'a'))?.events.map(({ kind }) => kind),
    ['write'],
  );
});

const page = (name: string, lines: string[]) => readTrace(`${lines.join('\n')}\n`).files.get(name);

t.test('msync with MS_SYNC covers the file range at its addresses, with MS_ASYNC nothing', async (t) => {
  const file = page('/d', [
    '1 mmap(NULL, 16384, PROT_READ|PROT_WRITE, MAP_SHARED, 3</d>, 0x2000) = 0x10000',
    '1 msync(0x11000, 4096, MS_SYNC) = 0',
    '1 msync(0x12000, 100, MS_SYNC|MS_INVALIDATE) = 0',
    '1 msync(0x13000, 4096, MS_ASYNC) = 0',
    '1 msync(0x10000, 4096, MS_SYNC) = -1 EIO (Input/output error)',
    '1 msync(0x10000, 4096, MS_SYNC <unfinished ...>',
  ]);
  t.equal(file?.mapped, true);
  t.match(file?.events, [
    { kind: 'sync', start: 0x3000, end: 0x4000 },
    { kind: 'sync', start: 0x4000, end: 0x5000 },
  ]);
  t.equal(file?.events.length, 2, 'an msync that failed or had not returned covers nothing either');
});

t.test('munmap, mremap and execve split, move and drop mappings as in the kernel', async (t) => {
  const file = page('/d', [
    '1 mmap(NULL, 12288, PROT_READ|PROT_WRITE, MAP_SHARED, 3</d>, 0) = 0x10000',
    '1 munmap(0x11000, 4096) = 0',
    '1 mremap(0x12000, 4096, 8192, MREMAP_MAYMOVE) = 0x20000',
    '1 msync(0x10000, 12288, MS_SYNC) = 0',
    '1 msync(0x20000, 8192, MS_SYNC) = 0',
    '1 execve("/bin/other", [...], 0x7ffc /* 3 vars */) = 0',
    '1 msync(0x20000, 8192, MS_SYNC) = 0',
  ]);
  t.match(file?.events, [
    { start: 0, end: 0x1000 },
    { start: 0x2000, end: 0x4000 },
  ]);
  t.equal(file?.events.length, 2);
});

t.test('a thread shares the mappings of its process, even when it runs before clone returns', async (t) => {
  const file = page('/d', [
    '1 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3</d>, 0) = 0x10000',
    '1 clone3({flags=CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_THREAD}, 88 <unfinished ...>',
    '2 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3</d>, 0x1000) = 0x20000',
    '1 <... clone3 resumed>) = 2',
    '1 msync(0x20000, 4096, MS_SYNC) = 0',
    '2 msync(0x10000, 4096, MS_SYNC) = 0',
  ]);
  t.match(file?.events, [{ start: 0x1000 }, { start: 0 }]);
});

t.test('a child process has copies of the mappings, and its parent does not get later ones', async (t) => {
  const file = page('/d', [
    '1 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3</d>, 0) = 0x10000',
    '1 clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7f) = 2',
    '2 msync(0x10000, 4096, MS_SYNC) = 0',
    '2 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 3</d>, 0x1000) = 0x20000',
    '1 msync(0x20000, 4096, MS_SYNC) = 0',
  ]);
  t.match(file?.events, [{ start: 0, end: 0x1000 }]);
  t.equal(file?.events.length, 1);
});

t.test('sync and syncfs cover every file', async (t) => {
  const file = page('/d', ['1 write(3</d>, ""..., 5) = 5', '1 syncfs(4</other>) = 0']);
  t.match(file?.events.at(-1), { kind: 'sync', start: 0, end: Number.POSITIVE_INFINITY });
});

t.test('a write to a descriptor whose opening was not seen counts as synced', async (t) => {
  const file = page('/d', ['1 write(9</d>, ""..., 5) = 5']);
  t.same(
    file?.events.map(({ kind }) => kind),
    ['write', 'sync'],
  );
});

t.test(
  'a program that asks for an io_uring is refused, and falls back to calls that a trace shows',
  { skip },
  (t) => {
    // Number of io_uring_setup on every architecture; its parameters have 120 bytes.
    const askForRing = `
    import { createRequire } from 'node:module';
    const koffi = createRequire(${JSON.stringify(import.meta.url)})('koffi');
    const syscall = koffi.load(null).func('long syscall(long number, long entries, void *parameters)');
    if (syscall(425, 8, Buffer.alloc(120)) < 0) fs.writeFileSync(dir + '/refused', 'x');`;
    const refused = traceOf(t, askForRing);
    t.equal(refused.trace.inconclusiveReason, '');
    t.ok(refused.trace.files.has(join(refused.dataDir, 'refused')), 'the program noticed it');
    const allowed = traceOf(t, askForRing, false);
    const hasIoUring = !existsSync(join(allowed.dataDir, 'refused'));
    t.match(allowed.trace.inconclusiveReason, hasIoUring ? /io_uring_setup/ : '');
    t.end();
  },
);

t.test('io_uring and relative renames make a log inconclusive', async (t) => {
  t.match(readTrace('1 io_uring_setup(8, {}) = 5<anon_inode:[io_uring]>\n').inconclusiveReason, /io_uring/);
  t.match(readTrace('1 rename("a", "b") = 0\n').inconclusiveReason, /relative/);
  t.equal(readTrace('1 renameat(AT_FDCWD</d>, "a", AT_FDCWD</d>, "b") = 0\n').inconclusiveReason, '');
});
