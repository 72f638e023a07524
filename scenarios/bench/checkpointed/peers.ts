import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { removeTree } from '../../../faults/files/remove-tree.js';
import { log } from '../../host/console.js';

/** Messages of 1 KiB per second that a system confirms: with one connection, and with 64. */
export interface SystemFigures {
  single: number;
  many: number;
}

/** Figures of other systems on the same disk; undefined for one that is not installed. */
export interface PeerFigures {
  redis?: SystemFigures;
  postgres?: SystemFigures;
}

const MESSAGE_BYTES = 1024;
const MANY = 64;
const START_TRIES = 150;
const START_INTERVAL_MS = 100;
const POSTGRES_SCRIPT = fileURLToPath(
  new URL('../../../../conformance/targets/systems/postgres.sh', import.meta.url),
);

/** Measures each system that is installed, through its own benchmark client. It syncs before each confirmation. */
export async function measurePeers(directory: string, seconds: number): Promise<PeerFigures> {
  const figures: PeerFigures = {};
  const measure = async (name: keyof PeerFigures, programs: string[], run: typeof measureRedis) => {
    const missing = await firstMissing(programs);
    if (missing !== undefined) {
      log(`${name}: not measured: ${missing} is not installed`);
      return;
    }
    const data = await mkdtemp(join(directory, 'plugpull-bench-'));
    try {
      await chmod(data, 0o755);
      figures[name] = await run(data, seconds);
    } finally {
      removeTree(data);
    }
  };
  await measure('redis', ['redis-server', 'redis-benchmark', 'redis-cli'], measureRedis);
  await measure('postgres', ['pgbench', 'psql', 'initdb'], measurePostgres);
  return figures;
}

async function firstMissing(programs: readonly string[]): Promise<string | undefined> {
  for (const program of programs)
    if ((await execa(program, ['--version'], { reject: false })).failed) return program;
  return undefined;
}

/** Redis that syncs its log before each answer: RPUSH of messages to a list. */
async function measureRedis(data: string, seconds: number): Promise<SystemFigures> {
  const port = await freePort();
  const flags = ['--bind', '127.0.0.1', '--port', `${port}`, '--dir', data, '--save', ''];
  flags.push('--appendonly', 'yes', '--appendfsync', 'always');
  return withServer('redis-server', flags, ['redis-cli', '-p', `${port}`, 'ping'], async () => {
    const rate = async (clients: number, requests: number) => {
      const args = ['-p', `${port}`, '-c', `${clients}`, '-n', `${requests}`, '-d', `${MESSAGE_BYTES}`];
      const { stdout } = await execa('redis-benchmark', [...args, '--csv', '-t', 'rpush']);
      return Number(/^"RPUSH","([\d.]+)"/m.exec(stdout)?.[1]);
    };
    // The client takes a number of requests and no duration. Measure first how many it makes in a second.
    const timed = async (clients: number) => {
      const perSecond = await rate(clients, 20 * clients);
      return rate(clients, Math.ceil(perSecond * seconds));
    };
    return { single: await timed(1), many: await timed(MANY) };
  });
}

/** PostgreSQL with synchronous_commit on: an INSERT of one row in a transaction of its own. */
async function measurePostgres(data: string, seconds: number): Promise<SystemFigures> {
  const port = await freePort();
  await execa('sh', [POSTGRES_SCRIPT, 'install', data]);
  const connection = ['-h', '127.0.0.1', '-p', `${port}`, '-U', 'postgres'];
  const sql = (text: string) => ['psql', ...connection, '-qtc', text, 'postgres'];
  return withServer(
    'sh',
    [POSTGRES_SCRIPT, 'serve', data, `${port}`, 'on'],
    sql('create table if not exists messages (number bigserial primary key, body text not null)'),
    async () => {
      const script = join(data, 'insert.sql');
      await writeFile(script, `insert into messages (body) values ('${'a'.repeat(MESSAGE_BYTES)}');\n`);
      const rate = async (clients: number) => {
        const args = [
          '-n',
          '-M',
          'prepared',
          '-f',
          script,
          '-c',
          `${clients}`,
          '-T',
          `${Math.ceil(seconds)}`,
        ];
        const { stdout } = await execa('pgbench', [...connection, ...args, 'postgres']);
        return Number(/^tps = ([\d.]+)/m.exec(stdout)?.[1]);
      };
      return { single: await rate(1), many: await rate(MANY) };
    },
  );
}

/** Starts a server, waits until a command succeeds, and stops the server after `use`. */
async function withServer<T>(
  program: string,
  flags: readonly string[],
  [ready = '', ...readyFlags]: readonly string[],
  use: () => Promise<T>,
): Promise<T> {
  const server = spawn(program, flags, { stdio: 'ignore' });
  const ended = once(server, 'close');
  try {
    for (let tries = 1; (await execa(ready, readyFlags, { reject: false })).failed; tries += 1) {
      if (tries === START_TRIES || server.exitCode !== null) throw new Error(`${program} did not start`);
      await new Promise((resolve) => setTimeout(resolve, START_INTERVAL_MS));
    }
    return await use();
  } finally {
    // SIGINT is the fast stop of PostgreSQL. It also stops Redis.
    server.kill('SIGINT');
    await ended;
  }
}

/** Returns a port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
