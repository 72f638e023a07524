import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { straceAvailability } from '../../faults/programs.js';
import { engineSkipReason } from '../fixtures/engine.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { packageRoot } from '../host/version.js';
import { BOOT_ID_FILE } from '../runtime/boot/boot-view.js';
import type { GateResult } from './result.js';

const availability = blocklogAvailability();
const skip = availability.available ? false : availability.why;

/** Runs a gate with power cuts of a queue that trusts its unsynced files exactly in the boot that wrote them. */
async function gateWithBootId(
  workspace: TestWorkspace,
  bootIdFile: string,
  flags: readonly string[] = ['--faults', 'power-cut'],
) {
  // Containers see the folder of the target file only.
  cpSync(join(packageRoot(), 'conformance/fixtures/queue.mjs'), join(workspace.dir, 'queue.mjs'));
  const command = ['{node}', '{dir}/queue.mjs', '--data', '{data}', '--port', '{port}'];
  const target = workspace.target([...command, '--boot-id', bootIdFile], {
    guarantee: {
      faults: ['power-cut', 'tear'],
      duplicatesPerCrash: 0,
      redeliverySeconds: 6,
      recoverySeconds: 20,
    },
  });
  const options = ['--json', '--keep', '--seed', '3', '--budget', '10m', '--injections', '6', ...flags];
  const { stdout, stderr } = await workspace.run(['gate', target, ...options]);
  return { result: JSON.parse(stdout) as GateResult, stderr };
}

const logsOf = (evidence: string): string =>
  readdirSync(evidence, { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('logs/server.log'))
    .map((name) => readFileSync(join(evidence, name), 'utf8'))
    .join('');

const noEngine = await engineSkipReason();
const RUNTIMES: readonly (readonly [flags: readonly string[], skip: string | false])[] = [
  [['--faults', 'power-cut'], skip],
  [['--faults', 'power-cut', '--runtime', 'docker'], skip || noEngine],
  [['--faults', 'tear'], skip || (straceAvailability().available ? false : 'strace is not installed')],
];

for (const [flags, skipped] of RUNTIMES) {
  const name = `a queue that trusts unsynced files only in the same boot survives ${flags.slice(1).join(' ')}`;
  t.test(name, { skip: skipped }, async (t) => {
    const workspace = new TestWorkspace();
    t.teardown(() => workspace.remove());
    const { result, stderr } = await gateWithBootId(workspace, BOOT_ID_FILE, flags);
    t.equal(result.verdict, 'pass', stderr);
    t.ok(
      result.faults.some(({ hit }) => hit > 0),
      'a crash of the machine hit',
    );
    const log = logsOf(result.evidence ?? '');
    t.ok(new Set(log.match(/boot \S+: reads the log/g)).size > 1, 'starts were in different boots');
    // A start under strace before a tear is in the boot of the start before it.
    if (!flags.includes('tear')) t.notMatch(log, /reads the copy/);
    t.notMatch(log, readFileSync(BOOT_ID_FILE, 'latin1').trim(), 'no boot is that of this machine');
  });
}

t.test('the same queue loses messages if the boot id does not change', { skip }, async (t) => {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const sameForEver = join(workspace.dir, 'boot_id');
  writeFileSync(sameForEver, 'one boot\n');
  const { result, stderr } = await gateWithBootId(workspace, sameForEver);
  t.equal(result.verdict, 'fail', stderr);
  t.match(logsOf(result.evidence ?? ''), /reads the copy/);
});
