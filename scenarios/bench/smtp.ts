import { createInterface } from 'node:readline';
import { execa } from 'execa';
import { referenceProgram } from './programs.js';
import { sendUntil } from './smtp-sessions.js';
import { CountingSink } from './smtp-sink.js';

/**
 * Throughput of mail through a whole gateway, from the first MAIL to the last delivery, and quantiles of
 * the time until a message is confirmed.
 */
export interface SmtpFigures {
  msgsPerSecond: number;
  confirmedPerSecond: number;
  p50Ms: number;
  p99Ms: number;
}

const SESSIONS = 64;
const WORKERS = 2;
const MESSAGE_BYTES = 1024;
/** Duration of the load before the measurement, which is not measured. */
const WARM_UP_MS = 3000;

/**
 * Measures 64 sessions with a gateway of two workers and a helper, which relays 1 KiB messages to a sink.
 * The measurement starts after a warm-up.
 */
export async function measureSmtp(queue: string, seconds: number): Promise<SmtpFigures> {
  const sink = new CountingSink();
  const nextHop = `127.0.0.1:${await sink.listen()}`;
  const gateway = execa(
    process.execPath,
    [
      referenceProgram('synchronous/main.js'),
      'gateway',
      '--queue',
      queue,
      '--workers',
      `${WORKERS}`,
      '--next-hop',
      nextHop,
    ],
    { stderr: 'inherit', reject: false },
  );
  try {
    const ports = await waitForPorts(gateway.stdout);
    const warmUp = await sendUntil(ports, SESSIONS, MESSAGE_BYTES, performance.now() + WARM_UP_MS);
    await sink.waitForCount(warmUp.count);
    const startedMs = performance.now();
    const { count, latenciesMs } = await sendUntil(
      ports,
      SESSIONS,
      MESSAGE_BYTES,
      startedMs + seconds * 1000,
    );
    const confirmedMs = performance.now() - startedMs;
    await sink.waitForCount(warmUp.count + count);
    const deliveredMs = performance.now() - startedMs;
    latenciesMs.sort((a, b) => a - b);
    const quantileMs = (share: number): number =>
      latenciesMs[Math.floor(share * (latenciesMs.length - 1))] ?? 0;
    return {
      msgsPerSecond: count / (deliveredMs / 1000),
      confirmedPerSecond: count / (confirmedMs / 1000),
      p50Ms: quantileMs(0.5),
      p99Ms: quantileMs(0.99),
    };
  } finally {
    gateway.kill('SIGTERM');
    await gateway;
    sink.close();
  }
}

/** Waits until the gateway has printed the port of each worker, and returns the ports. */
async function waitForPorts(stdout: NodeJS.ReadableStream): Promise<number[]> {
  const ports: number[] = [];
  for await (const line of createInterface({ input: stdout })) {
    const { event, port } = JSON.parse(line) as { event: string; port?: number };
    if (event === 'ready' && port !== undefined) ports.push(port);
    if (ports.length === WORKERS) return ports;
  }
  throw new Error('the gateway ended before it was ready');
}
