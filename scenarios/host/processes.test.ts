import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { environmentOf, processEntry } from './processes.js';

/** Program whose first thread ends, while another one goes on until its standard input is closed. */
const FIRST_THREAD_ENDS = `
import ctypes, os, platform, sys, threading
SYS_EXIT = 60 if platform.machine() == 'x86_64' else 93
def rest():
    while True:
        state = open('/proc/self/stat').read().rpartition(')')[2].split()[0]
        if state == 'Z': break
    print('first thread has ended', flush=True)
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=rest).start()
ctypes.CDLL(None).syscall(SYS_EXIT, 0)
`;

t.test(
  'a process is not a zombie while one of its threads runs, and its environment can be read',
  { skip: spawnSync('python3', ['-V']).status === 0 ? false : 'python3 is not installed' },
  async (t) => {
    const child = spawn('python3', ['-c', FIRST_THREAD_ENDS], {
      env: { ...process.env, PLUGPULL_TEST_MARK: 'here' },
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const { pid } = child;
    if (pid === undefined) throw new Error('python3 did not start');
    const exit = once(child, 'exit');
    t.teardown(() => child.kill('SIGKILL'));
    await once(child.stdout, 'data');
    t.equal(processEntry(pid)?.state, 'R');
    t.equal(environmentOf(pid, 'PLUGPULL_TEST_MARK'), 'here');
    child.stdin.end();
    await exit;
    t.equal(processEntry(pid), undefined);
  },
);

t.test('a process that can open no more files takes no living process for an ended one', async (t) => {
  const module = new URL('./processes.js', import.meta.url).href;
  const source = `
    import { openSync } from 'node:fs';
    import * as processes from ${JSON.stringify(module)};
    const codes = new Set();
    const readers = Object.entries({
      processEntry: () => processes.processEntry(process.ppid),
      allProcesses: () => processes.allProcesses(),
      environmentOf: () => processes.environmentOf(process.ppid, 'PATH'),
      openFilesOf: () => processes.openFilesOf(process.pid),
      commandLineOf: () => processes.commandLineOf(process.ppid),
      readText: () => processes.readText('/proc/self/stat'),
    });
    try { for (;;) openSync('/dev/null', 'r'); } catch {}
    for (const [name, read] of readers) {
      try { console.log(name, read()); } catch (error) { console.log(name, error.code); }
    }`;
  const script = 'ulimit -n 200; exec "$0" --input-type=module -e "$1"';
  const { stdout, stderr } = spawnSync('bash', ['-c', script, process.execPath, source], {
    encoding: 'utf8',
  });
  const names = ['processEntry', 'allProcesses', 'environmentOf', 'openFilesOf', 'commandLineOf', 'readText'];
  t.strictSame(
    stdout.trim().split('\n'),
    names.map((name) => `${name} EMFILE`),
    stderr,
  );
});
