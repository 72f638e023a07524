import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
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

t.test('io_uring and a rename in an unknown folder make a log inconclusive', async (t) => {
  t.match(readTrace('1 io_uring_setup(8, {}) = 5<anon_inode:[io_uring]>\n').inconclusiveReason, /io_uring/);
  t.match(readTrace('1 rename("a", "b") = 0\n').inconclusiveReason, /relative/);
  t.match(readTrace('1 renameat(5, "a", 5, "b") = 0\n').inconclusiveReason, /relative/);
  t.equal(readTrace('1 renameat(AT_FDCWD</d>, "a", AT_FDCWD</d>, "b") = 0\n').inconclusiveReason, '');
});

/** Returns the paths of the files that have a sync, after the file `/d/new` was synced and these calls were made. */
function syncedAfter(...calls: string[]): string[] {
  const lines = [
    '1 openat(AT_FDCWD</start>, "/d/new", O_WRONLY|O_CREAT) = 3</d/new>',
    '1 fsync(3</d/new>) = 0',
    ...calls,
  ];
  const trace = readTrace(`${lines.join('\n')}\n`, (folder) => LINKS[folder] ?? resolve(folder));
  if (trace.inconclusiveReason !== '') return [trace.inconclusiveReason];
  return [...trace.files]
    .filter(([, { events }]) => events.some(({ kind }) => kind === 'sync'))
    .map(([path]) => path);
}
const LINKS: Record<string, string> = { '/link': '/d' };

t.test('a file that is renamed by a relative path keeps its syncs', async (t) => {
  const cases: [what: string, calls: string[]][] = [
    ['chdir', ['1 chdir("/d") = 0', '1 rename("new", "kept") = 0']],
    [
      'chdir by a relative path',
      ['1 chdir("/d/sub") = 0', '1 chdir("..") = 0', '1 rename("new", "./kept") = 0'],
    ],
    ['chdir by a symbolic link', ['1 chdir("/link") = 0', '1 rename("new", "kept") = 0']],
    ['a path with a symbolic link', ['1 rename("/link/new", "/link/kept") = 0']],
    [
      'a failed chdir',
      ['1 chdir("/d") = 0', '1 chdir("/e") = -1 ENOENT (No such file)', '1 rename("new", "kept") = 0'],
    ],
    ['fchdir', ['1 fchdir(4</d>) = 0', '1 rename("new", "kept") = 0']],
    [
      'a folder that another call shows',
      ['1 openat(AT_FDCWD</d>, "x", O_RDONLY) = -1 ENOENT (x)', '1 rename("new", "kept") = 0'],
    ],
    ['descriptors of folders', ['1 renameat(4</d>, "new", 5</d>, "kept") = 0']],
    [
      'a descriptor and the working directory',
      ['1 chdir("/d") = 0', '1 renameat2(4</d>, "new", AT_FDCWD, "kept", 0) = 0'],
    ],
    [
      'a link and an unlink',
      ['1 linkat(4</d>, "new", 4</d>, "kept", 0) = 0', '1 unlinkat(4</d>, "new", 0) = 0'],
    ],
    [
      'a child with the folder of its parent',
      ['1 chdir("/d") = 0', '1 fork() = 2', '2 rename("new", "kept") = 0'],
    ],
    [
      'a child that changes only its own folder',
      ['1 chdir("/d") = 0', '1 clone(flags=SIGCHLD) = 2', '2 chdir("/e") = 0', '1 rename("new", "kept") = 0'],
    ],
    [
      'a thread that changes the folder of its process',
      ['1 clone3({flags=CLONE_VM|CLONE_FS}, 88) = 2', '2 chdir("/d") = 0', '1 rename("new", "kept") = 0'],
    ],
    [
      'a thread that no longer shares it',
      [
        ...['1 chdir("/d") = 0', '1 clone3({flags=CLONE_VM|CLONE_FS}, 88) = 2', '2 unshare(CLONE_FS) = 0'],
        ...['2 chdir("/e") = 0', '1 rename("new", "kept") = 0'],
      ],
    ],
    ['chroot', ['1 chroot("/d") = 0', '1 rename("/new", "/kept") = 0']],
    ['an exchange', ['1 renameat2(4</d>, "new", 4</d>, "kept", RENAME_EXCHANGE) = 0']],
  ];
  for (const [what, calls] of cases)
    t.same(
      syncedAfter(...calls).filter((path) => !path.includes('\0')),
      ['/d/kept'],
      what,
    );
});

t.test('an exchange of two names gives each file the name of the other', async (t) => {
  const calls = ['1 fsync(6</d/old>) = 0', '1 renameat2(4</d>, "new", 4</d>, "old", RENAME_EXCHANGE) = 0'];
  t.same(syncedAfter(...calls).sort(), ['/d/new', '/d/old']);
});

t.test('a file of O_TMPFILE keeps its syncs when it gets a name', async (t) => {
  for (const link of [
    '1 linkat(AT_FDCWD</d>, "/proc/self/fd/3", AT_FDCWD</d>, "named", AT_SYMLINK_FOLLOW) = 0',
    '1 linkat(3</d/#77>(deleted), "", 4</d>, "named", AT_EMPTY_PATH) = 0',
  ]) {
    const file = page('/d/named', [
      '1 openat(AT_FDCWD</d>, ".", O_RDWR|O_TMPFILE, 0600) = 3</d/#77>(deleted)',
      '1 write(3</d/#77>(deleted), ""..., 3) = 3',
      '1 fsync(3</d/#77>(deleted)) = 0',
      link,
      '1 pwrite64(3</d/#77>(deleted), ""..., 2, 3) = 2',
    ]);
    t.same(
      file?.events.map(({ kind }) => kind),
      ['write', 'sync', 'write'],
      link,
    );
  }
});

t.test('a sync of a deleted file does not cover the new file of its name', async (t) => {
  const file = page('/d/a', [
    '1 openat(AT_FDCWD</d>, "a", O_WRONLY|O_CREAT) = 3</d/a>',
    '1 unlink("a") = 0',
    '1 openat(AT_FDCWD</d>, "a", O_WRONLY|O_CREAT) = 4</d/a>',
    '1 write(4</d/a>, ""..., 3) = 3',
    '1 fsync(3</d/a>(deleted)) = 0',
  ]);
  t.same(
    file?.events.map(({ kind }) => kind),
    ['write'],
  );
});

t.test('calls that look like a sync and promise none cover nothing', async (t) => {
  const file = page('/d/a', [
    '1 openat(AT_FDCWD</d>, "a", O_WRONLY|O_CREAT|O_DIRECT) = 3</d/a>',
    '1 write(3</d/a>, ""..., 512) = 512',
    '1 sync_file_range(3</d/a>, 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE|SYNC_FILE_RANGE_WRITE|SYNC_FILE_RANGE_WAIT_AFTER) = 0',
    '1 msync(0x10000, 4096, MS_ASYNC) = 0',
    '1 fallocate(3</d/a>, FALLOC_FL_KEEP_SIZE, 0, 4096) = 0',
    '1 fdatasync(3</d/a>) = -1 EIO (Input/output error)',
  ]);
  t.same(
    file?.events.map(({ kind }) => kind),
    ['write', 'failed-sync'],
  );
});

t.test(
  'every call that writes is seen with its offset, and counts as a sync on a descriptor with O_DSYNC',
  async (t) => {
    const calls = [
      'write(3</d/a>, ""..., 10) = 10',
      'sendfile(3</d/a>, 8</d/b>, [0], 10) = 10',
      'splice(9<pipe:[1]>, NULL, 3</d/a>, NULL, 10, 0) = 10',
      'copy_file_range(8</d/b>, [5], 3</d/a>, NULL, 10, 0) = 10',
      'pwritev2(3</d/a>, [{iov_base=""..., iov_len=10}], 1, -1, 0) = 10',
      'copy_file_range(8</d/b>, [5], 3</d/a>, [7], 10, 0) = 10',
      'pwritev2(3</d/a>, [{iov_base=""..., iov_len=10}], 1, 7, 0) = 10',
      'write(3</d/a>, ""..., 10) = 10',
    ];
    const starts = [0, 10, 20, 30, 40, 7, 7, 50];
    for (const flag of ['', '|O_DSYNC']) {
      const file = page('/d/a', [
        `1 openat(AT_FDCWD</d>, "a", O_WRONLY|O_CREAT${flag}) = 3</d/a>`,
        ...calls.map((call) => `1 ${call}`),
      ]);
      const writes = starts.map((start) => ({ kind: 'write', start, length: 10 }));
      const synced = starts.map((start) => ({ kind: 'sync', start, end: start + 10 }));
      t.match(file?.events, flag === '' ? writes : writes.flatMap((write, index) => [write, synced[index]]));
      t.equal(file?.events.length, flag === '' ? 8 : 16);
    }
    const flags = page('/d/a', [
      '1 openat(AT_FDCWD</d>, "a", O_WRONLY) = 3</d/a>',
      '1 pwritev2(3</d/a>, [{iov_base=""..., iov_len=10}], 1, 7, RWF_DSYNC) = 10',
      '1 pwritev2(3</d/a>, [{iov_base=""..., iov_len=10}], 1, 7, RWF_APPEND) = 10',
    ]);
    t.match(flags?.events, [{ start: 7 }, { kind: 'sync', start: 7, end: 17 }, { start: 'append' }]);
  },
);

t.test(
  'a descriptor that fcntl has duplicated writes without a sync, at an offset that is unknown',
  async (t) => {
    const file = page('/d/a', [
      '1 openat(AT_FDCWD</d>, "a", O_WRONLY) = 3</d/a>',
      '1 write(9</d/a>, ""..., 10) = 10',
      '1 write(3</d/a>, ""..., 10) = 10',
    ]);
    t.match(file?.events, [
      { kind: 'write', start: 'unknown' },
      { kind: 'write', start: 'unknown' },
    ]);
    t.equal(file?.events.length, 2);
  },
);

t.test(
  'a descriptor that also reads writes at the end of a file that was empty when it was opened',
  async (t) => {
    const write = (fd: number) => `1 write(${fd}</d/a>, ""..., 10) = 10`;
    const startsOf = (flags: string, lines: string[]) =>
      page('/d/a', [`1 openat(AT_FDCWD</d>, "a", ${flags}) = 3</d/a>`, ...lines])?.events.flatMap((event) =>
        event.kind === 'write' && event.length === 10 ? [event.start] : [],
      );
    const empty = 'O_RDWR|O_CREAT|O_TRUNC';
    t.same(startsOf(empty, [write(3), write(3)]), [0, 10]);
    t.same(startsOf('O_RDWR|O_CREAT|O_EXCL', [write(3)]), [0]);
    t.same(startsOf('O_RDWR|O_CREAT', [write(3)]), ['unknown'], 'a read may have moved it');
    // From here on the position may be before the end, where a read moves it.
    t.same(startsOf(empty, [write(3), '1 lseek(3</d/a>, 0, SEEK_END) = 10', write(3)]), [0, 10]);
    t.same(startsOf(empty, [write(3), '1 lseek(3</d/a>, 0, SEEK_SET) = 0', write(3)]), [0, 'unknown']);
    t.same(startsOf(empty, ['1 pwrite64(3</d/a>, ""..., 10, 5) = 10', write(3)]), [5, 'unknown']);
    t.same(startsOf(empty, ['1 ftruncate(3</d/a>, 9) = 0', write(3)]), ['unknown']);
    const other = '1 openat(AT_FDCWD</d>, "a", O_WRONLY) = 4</d/a>';
    t.same(startsOf(empty, [other, write(4), write(3)]), [0, 'unknown']);
  },
);

t.test('a sync of all files covers also a file that is used later', async (t) => {
  const trace = readTrace('1 sync() = 0\n1 write(3</d/a>, ""..., 3) = 3\n1 syncfs(4</d>) = -1 EIO (x)\n');
  t.same(
    trace.files.get('/d/a')?.events.map(({ kind }) => kind),
    ['sync', 'write', 'sync', 'failed-sync'],
  );
  t.equal(trace.syncsOfAll.length, 2);
});

t.test('the first use of the content of the start is noted for each file', async (t) => {
  const { startUses } = readTrace(
    [
      '1 openat(AT_FDCWD</d>, "emptied", O_WRONLY|O_TRUNC) = 3</d/emptied>',
      '1 openat(AT_FDCWD</d>, "shm", O_RDWR|O_CREAT) = 4</d/shm>',
      '1 ftruncate(4</d/shm>, 3) = 0',
      '1 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 4</d/shm>, 0) = 0x10000',
      '1 pread64(5</d/read>, ""..., 10, 0) = 10',
      '1 ftruncate(5</d/read>, 0) = 0',
      '1 mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, 6</d/mapped>, 0) = 0x20000',
      '1 truncate("/d/mapped", 0) = 0',
      '1 rename("/d/moved", "/d/moved.old") = 0',
      '1 openat(AT_FDCWD</d>, "moved", O_WRONLY|O_CREAT|O_TRUNC) = 7</d/moved>',
      '1 unlink("/d/gone") = 0',
      '1 openat(AT_FDCWD</d>, "gone", O_WRONLY|O_CREAT|O_TRUNC) = 8</d/gone>',
      '1 rename("/d/folder", "/d/elsewhere") = 0',
      '1 openat(AT_FDCWD</d>, "folder/a", O_WRONLY|O_CREAT|O_TRUNC) = 9</d/folder/a>',
      '1 copy_file_range(10</d/source>, NULL, 7</d/moved>, NULL, 10, 0) = 10',
      '1 truncate("/d/source", 0) = 0',
      '',
    ].join('\n'),
  );
  t.match(startUses.get('/d/emptied'), { keptBytes: 0 });
  t.match(startUses.get('/d/shm'), { keptBytes: 3 });
  for (const name of ['read', 'mapped', 'moved', 'gone', 'folder', 'source'])
    t.equal(startUses.get(`/d/${name}`), 'used', name);
  t.equal(startUses.get('/d/folder/a'), undefined);
});
