// Makes the files of a queue if there are none yet, so that a site can be started again on its old volumes.
//
//   node install.mjs DIRECTORY [further flags of the queue's install]
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const [, , directory = '/queue', ...flags] = process.argv;
if (!existsSync(join(directory, 'queue.json'))) {
  const queue = fileURLToPath(new URL('../../dist/reference-impl/synchronous/main.js', import.meta.url));
  const { status } = spawnSync(process.execPath, [queue, 'install', '--queue', directory, ...flags], {
    stdio: 'inherit',
  });
  process.exitCode = status ?? 4;
}
