import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { BOOT_ID_FILE } from '../runtime/boot/boot-view.js';
import type { GateResult } from './result.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;

/** Runs a gate with power cuts of a queue that trusts its unsynced files exactly in the boot that wrote them. */
async function gateWithBootId(workspace: TestWorkspace, bootIdFile: string, flags: readonly string[] = []) {
  const target = workspace.queue('', ['power-cut'], 10, ['--boot-id', bootIdFile]);
  const options = ['--json', '--keep', '--seed', '3', '--budget', '10m', '--injections', '6', ...flags];
  const { stdout, stderr } = await workspace.run(['gate', target, '--faults', 'power-cut', ...options]);
  return { result: JSON.parse(stdout) as GateResult, stderr };
}

const logsOf = (evidence: string): string =>
  readdirSync(evidence, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('logs/server.log'))
    .map((name) => readFileSync(join(evidence, name), 'utf8'))
    .join('');

t.test(
  'a queue that trusts unsynced files only in the same boot survives power cuts',
  { skip },
  async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const { result, stderr } = await gateWithBootId(workspace, BOOT_ID_FILE);
    t.equal(result.verdict, 'pass', stderr);
    t.ok(
      result.faults.some(({ hit }) => hit > 0),
      'a power cut hit',
    );
    const log = logsOf(result.evidence ?? '');
    t.match(log, /reads the log/);
    t.notMatch(log, /reads the copy/, 'each start after a power cut was in another boot');
    t.notMatch(log, readFileSync(BOOT_ID_FILE, 'latin1').trim(), 'no boot is that of this machine');
  },
);

t.test('the same queue loses messages if the boot id does not change', { skip }, async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const sameForEver = join(workspace.dir, 'boot_id');
  writeFileSync(sameForEver, 'one boot\n');
  const { result, stderr } = await gateWithBootId(workspace, sameForEver);
  t.equal(result.verdict, 'fail', stderr);
  t.match(logsOf(result.evidence ?? ''), /reads the copy/);
});
