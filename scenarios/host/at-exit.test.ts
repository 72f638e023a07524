import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from './version.js';

t.test(
  'at exit, clean-ups run latest first; one that throws stops neither the others nor the exit code',
  async (t) => {
    const source = `
    import { atExit } from ${JSON.stringify(join(packageRoot(), 'dist/scenarios/host/at-exit.js'))};
    atExit(() => console.log('first'));
    const forget = atExit(() => console.log('forgotten'));
    atExit(() => { throw new Error('still in use'); });
    atExit(() => console.log('last'));
    forget();
    process.exit(130);`;
    const ended = spawnSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' });
    t.match(ended, { status: 130, stdout: 'last\nfirst\n', stderr: '' });
  },
);
