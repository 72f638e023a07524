import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import t from 'tap';
import { attachLoop, detachLoop } from './loop.js';

t.test(
  'flushes reach the file, whatever the last user of the loop device had set',
  { skip: process.getuid?.() === 0 ? false : 'it attaches loop devices, which needs root' },
  (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'plugpull-loop-'));
    const file = join(dir, 'image');
    writeFileSync(file, '');
    truncateSync(file, 1 << 20);
    const attached: string[] = [];
    t.teardown(() => {
      for (const device of attached) detachLoop(device);
      rmSync(dir, { recursive: true, force: true });
    });
    const attach = () => {
      const device = attachLoop(file);
      attached.push(device);
      return device;
    };
    const setting = (device: string) => join('/sys/block', basename(device), 'queue/write_cache');
    // Others may take the number in between: some number comes twice soon.
    const told = new Set<string>();
    for (let turn = 0; turn < 20; turn++) {
      const device = attach();
      t.equal(readFileSync(setting(device), 'utf8').trim(), 'write back');
      if (told.has(device)) break;
      told.add(device);
      writeFileSync(setting(device), 'write through');
      detachLoop(device);
    }
    t.ok(told.size < 20, 'a device was used again');
    t.end();
  },
);
