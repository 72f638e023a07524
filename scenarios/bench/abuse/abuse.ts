import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { execa } from 'execa';
import { log, print, printJson } from '../../host/console.js';
import { GatewayProcess } from '../gateway-process.js';
import { CountingSink } from '../smtp-sink.js';
import { ATTACKS } from './attacks.js';
import { sendGoodMail } from './good-mail.js';

/** Options of the measurement. */
export interface AbuseOptions {
  /** Path of the queue's program. */
  program: string;
  /** Directory for the queues. */
  directory: string;
  /** Names of the attacks. */
  kinds: readonly string[];
  /** Number of sessions of each attack. */
  sessions: number;
  /** Duration of each attack. */
  seconds: number;
  json: boolean;
}

/** The figures of one attack. */
interface AbuseFigures {
  kind: string;
  /** Number of connections and megabytes of the attack. */
  connections: number;
  megabytes: number;
  /** Replies to the attack by their code. */
  replies: Record<string, number>;
  /** Highest RSS of the worker, in MB; undefined when it was killed before it could be read. */
  rssMB: number | undefined;
  /** The part of it that is not mapped files, at the end of the attack. */
  anonymousMB: number | undefined;
  /** Number of times that the worker died. */
  deaths: number;
  good: { sent: number; answers: Record<string, number>; p50Ms: number; p99Ms: number; maxMs: number };
}

const ATTACKER = fileURLToPath(new URL('attacker.js', import.meta.url));
/** Good mail starts this long after the attack, in milliseconds. */
const HEAD_START_MS = 1000;

/** Measures each kind of abuse with a fresh gateway of one worker, and prints a table or JSON. */
export async function measureAbuse(options: AbuseOptions): Promise<void> {
  const all: AbuseFigures[] = [];
  for (const kind of options.kinds) {
    log(`smtp-abuse: ${kind}: ${ATTACKS[kind]?.what}, ${options.sessions} sessions, ${options.seconds} s`);
    all.push(await measureOne(kind, options));
  }
  if (options.json) printJson(all);
  else for (const line of formatTable(all).split('\n')) print(line);
}

async function measureOne(kind: string, options: AbuseOptions): Promise<AbuseFigures> {
  const { program, directory, sessions, seconds } = options;
  const sink = new CountingSink();
  const nextHop = `127.0.0.1:${await sink.listen()}`;
  const gateway = await GatewayProcess.start({ program, directory, workers: 1, nextHop });
  let rssMB: number | undefined;
  let anonymousMB: number | undefined;
  const sample = setInterval(() => {
    const status = statusOf(gateway.workerPid(0));
    if (status === undefined) return;
    rssMB = Math.max(rssMB ?? 0, status.peakMB);
    anonymousMB = status.anonymousMB;
  }, 100);
  try {
    const [port = 0] = gateway.ports;
    const attacker = execa(process.execPath, [ATTACKER, kind, `${port}`, `${sessions}`, `${seconds}`], {
      stderr: 'inherit',
    });
    await new Promise((resolve) => setTimeout(resolve, HEAD_START_MS));
    const good = await sendGoodMail(port, performance.now() + seconds * 1000 - HEAD_START_MS);
    const { stdout } = await attacker;
    const { connections, megabytes, replies } = JSON.parse(stdout) as AbuseFigures;
    const at = (share: number) =>
      Math.round(good.latenciesMs[Math.floor(share * (good.latenciesMs.length - 1))] ?? Number.NaN);
    const { sent, answers } = good;
    return {
      kind,
      ...{ connections, megabytes, replies, rssMB, anonymousMB },
      deaths: gateway.crashes,
      good: { sent, answers, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) },
    };
  } finally {
    clearInterval(sample);
    await gateway.stop();
    sink.close();
  }
}

function statusOf(pid: number | undefined): { peakMB: number; anonymousMB: number } | undefined {
  if (pid === undefined) return undefined;
  try {
    const text = readFileSync(`/proc/${pid}/status`, 'utf8');
    const megabytesOf = (name: string) =>
      Math.round(Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1]) / 1000);
    return { peakMB: megabytesOf('VmHWM'), anonymousMB: megabytesOf('RssAnon') };
  } catch {
    return undefined;
  }
}

function formatTable(all: readonly AbuseFigures[]): string {
  const counts = (of: Record<string, number>) =>
    Object.entries(of)
      .map(([name, count]) => `${name}:${count}`)
      .join(' ');
  const rows = all.map(({ kind, connections, megabytes, rssMB, anonymousMB, deaths, good, replies }) => [
    kind,
    `${connections}`,
    `${megabytes}`,
    rssMB === undefined ? '-' : `${rssMB} (${anonymousMB})`,
    `${deaths}`,
    `${good.sent}`,
    counts(good.answers),
    `${good.p50Ms} / ${good.p99Ms} / ${good.maxMs}`,
    counts(replies),
  ]);
  rows.unshift([
    ...['abuse', 'connections', 'MB sent', 'RSS MB (anonymous)', 'deaths'],
    ...['good mail', 'answered', 'p50 / p99 / max ms', 'replies to the abuse'],
  ]);
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)));
  return rows
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
