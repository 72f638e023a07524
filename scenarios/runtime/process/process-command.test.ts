import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import t from 'tap';
import { type Boot, processCommands } from './process-command.js';

/** User id of `nobody`: root may enter every directory. */
const NOBODY = 65_534;

/** A boot that sees the files of the machine. */
const BOOT: Boot = { mayHave: () => undefined, enter: (command) => [...command] };

/** Calls `run` as a user that is not root. */
function withoutRoot<T>(run: () => T): T {
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid?.(NOBODY);
  try {
    return run();
  } finally {
    if (isRoot) process.seteuid?.(0);
  }
}

t.test('a program is found behind a directory of PATH that the user may not enter', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-command-'));
  t.teardown(() => rmSync(dir, { recursive: true, force: true }));
  chmodSync(dir, 0o755);
  const [closed, open] = [join(dir, 'closed'), join(dir, 'open')];
  for (const place of [closed, open]) mkdirSync(place);
  writeFileSync(join(open, 'tool'), '');
  chmodSync(join(open, 'tool'), 0o755);
  chmodSync(closed, 0);
  const start = (path: string) =>
    withoutRoot(() =>
      processCommands(BOOT, new Map(), dir)({ command: ['tool', '-x'], serviceEnv: { PATH: path } }),
    );
  t.match(start([closed, open].join(delimiter)), { program: 'tool', args: ['-x'] });
  t.throws(() => start(closed), { code: 'EACCES', message: 'spawn tool EACCES' });
  t.throws(() => start(dir), { code: 'ENOENT', message: 'spawn tool ENOENT' });
});

t.test('a command of a target does not get the state directory of the kit', async (t) => {
  const before = process.env.PLUGPULL_STATE;
  process.env.PLUGPULL_STATE = '/somewhere';
  t.teardown(() => {
    if (before === undefined) delete process.env.PLUGPULL_STATE;
    else process.env.PLUGPULL_STATE = before;
  });
  const { env } = processCommands(BOOT, new Map(), '/')({ command: ['sh'] });
  t.equal(env.PLUGPULL_STATE, undefined);
  t.equal(env.PATH, process.env.PATH);
});
