import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import t from 'tap';
import { attachLoop, detachLoop } from './loop.js';
import { runTool } from './mounts.js';

t.test(
  'flushes reach the file, whatever the previous user of the loop device had set',
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
    // Other programs may take a number in between, so repeat until some number comes twice.
    const told = new Set<string>();
    const cacheOf = (device: string) => readFileSync(setting(device), 'utf8').trim();
    for (let turn = 0; turn < 20; turn++) {
      const device = attach();
      t.equal(cacheOf(device), 'write back');
      if (told.has(device)) break;
      told.add(device);
      writeFileSync(setting(device), 'write through');
      runTool('losetup', ['--detach', device]);
    }
    t.ok(told.size < 20, 'a device was used again');
    const dropping = attachLoop(file, 'dropped');
    attached.push(dropping);
    t.equal(cacheOf(dropping), 'write through');
    detachLoop(dropping);
    t.equal(cacheOf(dropping), 'write back', 'the next user of the device gets flushes');
    t.end();
  },
);
