import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { whyNoLoops, whyNoMounts } from './privileges.js';

t.test('the mask of the capabilities says whether root may mount', async (t) => {
  const status = (mask: string) => `Name:\tnode\nCapEff:\t${mask}\nCapBnd:\t${mask}\n`;
  t.equal(whyNoMounts(status('000001ffffffffff')), undefined);
  t.equal(whyNoMounts(status('00000000a82425fb')), undefined, 'the default of Docker, with SYS_ADMIN');
  t.match(whyNoMounts(status('00000000a80425fb')), { why: /CAP_SYS_ADMIN/, remedy: /--cap-add SYS_ADMIN/ });
  t.equal(whyNoMounts(''), undefined, 'nothing is known');
});

t.test('a container needs device files for loop devices, and a machine does not', async (t) => {
  const dev = mkdtempSync(join(tmpdir(), 'plugpull-dev-'));
  t.teardown(() => rmSync(dev, { recursive: true, force: true }));
  const container = 'overlay / overlay rw 0 0\ntmpfs /dev tmpfs rw 0 0\n';
  t.equal(whyNoLoops('udev /dev devtmpfs rw 0 0\n', dev), undefined);
  t.match(whyNoLoops(container, dev), { why: /no loop device/, remedy: /--device-cgroup-rule/ });
  writeFileSync(join(dev, 'loop0'), '');
  t.equal(whyNoLoops(container, dev), undefined);
});
