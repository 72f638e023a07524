import { fileURLToPath } from 'node:url';
import t from 'tap';
import { copySparse } from './mounts.js';

t.test('a tool that finds the disk full fails with the code that a system call would return', async (t) => {
  const here = fileURLToPath(import.meta.url);
  t.throws(() => copySparse(here, '/dev/full'), {
    code: 'ENOSPC',
    message: /^cp .*No space left on device$/,
  });
  t.throws(() => copySparse(`${here}.missing`, '/dev/full'), { code: undefined, message: /No such file/ });
});
