import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { type GatewayEvent, Supervisor } from './supervisor.js';

/** Source of a service that reports that it is ready. It exits when the supervisor is gone or stops it. */
const SERVICE = `console.log('{"event":"ready"}'); process.on('disconnect', () => process.exit());`;

t.test('a service whose process could not be made is started again', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-supervisor-'));
  const program = join(dir, 'service.mjs');
  writeFileSync(program, SERVICE);
  const events: GatewayEvent[] = [];
  const { execPath } = process;
  t.teardown(() => {
    process.execPath = execPath;
    rmSync(dir, { recursive: true });
  });
  process.execPath = join(dir, 'no-such-program');
  const supervisor = new Supervisor({
    program,
    services: [{ name: 'helper', kind: 'helper', args: () => [] }],
    stopTimeoutMs: 5000,
    emit: (event) => {
      events.push(event);
      if (event.event === 'restart') process.execPath = execPath;
    },
  });
  await supervisor.start();
  await supervisor.stop();
  t.match(events, [
    { event: 'started', service: 'helper', pid: 0 },
    { event: 'exit', service: 'helper', code: null, signal: null },
    { event: 'restart', service: 'helper' },
    { event: 'started', service: 'helper' },
    { event: 'ready', service: 'helper' },
    { event: 'ready', service: 'gateway' },
    { event: 'stopping' },
  ]);
});
