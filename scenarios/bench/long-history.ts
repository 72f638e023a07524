import { createHash } from 'node:crypto';
import { closeSync, mkdirSync, openSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { certificateOf, certificateText } from '../../conformance/certificate/certificate.js';
import { readEvidence, writeEvidence } from '../../conformance/certificate/evidence.js';
import { FACTS_FORMAT, type Facts } from '../../conformance/certificate/facts.js';
import { targetFiles } from '../../conformance/certificate/target-files.js';
import { HISTORY_FORMAT, type Untimed, type WrittenEvent } from '../../conformance/history/events.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { kitVersion } from '../host/version.js';

/*
 * Makes a certificate whose history is as long as that of a run of days:
 *
 *     node dist/scenarios/bench/long-history.js DIR EVENTS [LOST]
 *
 * DIR must not exist. LOST confirmed messages are never delivered; default: none. One message in a hundred is
 * delivered twice, one in fifty is rejected, and a kill comes after every ten thousand messages.
 */

const MESSAGES_PER_KILL = 10_000;
const WRITE_BYTES = 1 << 20;

const [dir, eventsText = '', lostText = '0'] = process.argv.slice(2);
const eventCount = Number(eventsText);
if (dir === undefined || !(eventCount > 0)) {
  process.stderr.write('usage: long-history.js DIR EVENTS [LOST]\n');
  process.exitCode = 2;
} else makeCertificate(dir, eventCount, Number(lostText));

function makeCertificate(folder: string, events: number, lost: number): void {
  mkdirSync(folder);
  const target = join(folder, 'target.json');
  const history = join(folder, 'history.jsonl');
  const services = { server: { command: ['sh', '-c', 'exit', '{port}', '{data}'] } };
  const guarantee = { faults: ['kill'], duplicatesPerCrash: 1_000_000 };
  writeFileSync(target, JSON.stringify({ name: 'long', protocol: 'http', services, guarantee }));
  writeHistory(history, events, lost);
  const facts: Facts = {
    format: FACTS_FORMAT,
    kitVersion: kitVersion(),
    ...{ node: process.version, kernel: 'none', runtime: 'process', power: null, filesystem: 'none' },
    ...{ budgetMs: 1000, seed: 1, timeMeasured: true, targetFile: 'target.json', programs: [], images: [] },
    runs: [{ level: 'process' as const, notTried: [], hasHistory: true }],
  };
  writeEvidence(folder, facts, targetFiles(loadTarget(target), target), [
    { level: 'process', file: history },
  ]);
  rmSync(history);
  writeFileSync(join(folder, 'certificate.json'), certificateText(certificateOf(readEvidence(folder))));
}

function writeHistory(file: string, events: number, lost: number): void {
  const fd = openSync(file, 'wx');
  let pending = '';
  let written = 0;
  const record = (event: Untimed<WrittenEvent>) => {
    const { kind, ...rest } = event;
    pending += `${JSON.stringify({ kind, atMs: written / 10, ...rest })}\n`;
    written += 1;
    if (pending.length < WRITE_BYTES) return;
    writeSync(fd, pending);
    pending = '';
  };
  const run = {
    target: 'long',
    protocol: 'http',
    seed: 1,
    faults: ['kill'],
    startedAt: '2026-01-01T00:00:00Z',
  };
  record({ kind: 'run-started', format: HISTORY_FORMAT, ...run, kitVersion: kitVersion() });
  record({ kind: 'installed', round: 1 });
  record({ kind: 'service-started', service: 'server', incarnation: 1 });
  let sequence = 0;
  let injection = 0;
  for (let number = 1; written < events; number++) {
    const id = `1-${number % 8}-${number}`;
    const digest = createHash('sha256').update(id).digest('hex');
    const message = { id, sizeBytes: 900, digest };
    record({ kind: 'submitted', ...message, producer: number % 8, recipients: 1, shape: 'text' });
    if (number % 50 === 0) {
      record({ kind: 'answered', id, outcome: 'rejected', detail: '503' });
      continue;
    }
    record({ kind: 'answered', id, outcome: 'confirmed', detail: '201' });
    if (number % MESSAGES_PER_KILL === 1) {
      injection += 1;
      record({ kind: 'at-risk', injection, confirmedUndelivered: 1, inFlight: 0, inDelivery: 0 });
      const effect = { hit: true, scope: 'all-processes' as const, indexDamaged: false, failingMs: 0 };
      record({
        kind: 'fault',
        fault: 'kill',
        injection,
        ...effect,
        services: ['server'],
        detail: '',
        rotted: [],
      });
      record({ kind: 'recovered', injection, tookMs: 100 });
    }
    if (number > 1000 && number <= 1000 + lost) continue;
    for (let copies = number % 100 === 1 ? 2 : 1; copies > 0; copies--) {
      sequence += 1;
      record({ kind: 'delivered', sequence, ...message, recipients: [0] });
      record({ kind: 'consumed', sequence, id, how: 'answered' });
    }
  }
  record({ kind: 'drained', waitedMs: 1, complete: true, allowedMs: 1, allowedBy: 'claim' });
  record({ kind: 'run-ended', how: 'completed' });
  writeSync(fd, pending);
  closeSync(fd);
}
