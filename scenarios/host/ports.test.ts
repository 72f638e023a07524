import { execFile } from 'node:child_process';
import { createServer } from 'node:net';
import { promisify } from 'node:util';
import t from 'tap';
import { releasePort, reservePort } from './ports.js';

const run = promisify(execFile);

/** Reserves the port in another process. Resolves to what it prints: the port, or the error. */
async function reserveElsewhere(port: number): Promise<string> {
  const ports = JSON.stringify(new URL('./ports.js', import.meta.url).href);
  const range = JSON.stringify({ lowest: port, highest: port });
  const { stdout } = await run(process.execPath, [
    '--input-type=module',
    '-e',
    `import { reservePort } from ${ports};
     console.log(await reservePort(${range}).catch(({ message }) => message)); process.exit();`,
  ]);
  return stdout.trim();
}

t.test('a port that is reserved is not given to another process until it is released', async (t) => {
  const port = await reservePort();
  const inUse = `no free port between ${port} and ${port}`;
  t.equal(await reserveElsewhere(port), inUse);
  await t.rejects(reservePort({ lowest: port, highest: port }), { message: inUse });
  releasePort(port);
  t.equal(await reserveElsewhere(port), String(port));
});

t.test('a port on which a process listens is not given', async (t) => {
  const port = await reservePort();
  const server = createServer();
  await new Promise<void>((listening) => server.listen(port, '127.0.0.1', listening));
  releasePort(port);
  const taken = reservePort({ lowest: port, highest: port });
  await t.rejects(taken, { message: `no free port between ${port} and ${port}` });
  await new Promise((closed) => server.close(closed));
});
