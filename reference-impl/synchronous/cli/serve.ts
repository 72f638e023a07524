import { printErrorLine, printLine } from '../../common/cli/output.js';
import { Supervisor } from '../gateway/supervisor.js';
import { checkGatewaySettings, startWorker, type Worker } from '../gateway/worker.js';
import { runHelper } from '../helper/helper.js';
import { readDataFileHeader } from '../queue/install.js';
import { openDirectories } from '../queue/modes.js';
import { openQueue } from '../queue/open.js';
import { pairPaths } from '../queue/paths.js';
import type { QueueSettings } from '../settings/settings.js';

/** Runs a gateway worker until a stop signal. @throws the failure of the queue, if it fails */
export async function serveWorker(settings: QueueSettings): Promise<void> {
  const stop = stopSignal();
  // Check the settings first: opening the queue may take a whole restore.
  checkGatewaySettings(settings);
  warnOfOpenDirectories(settings);
  const queue = await openQueue(settings);
  const worker = await startWorker(settings, queue, queueIdOf(settings)).catch(async (failure: unknown) => {
    await queue.close();
    throw failure;
  });
  if (settings.smtp.tlsCert !== null) reloadTlsAtHangup(worker);
  await printLine({ event: 'ready', port: worker.port });
  const queueFailed = worker.queueFailure.then((reason) => {
    throw reason;
  });
  await Promise.race([whenAborted(stop), queueFailed]);
  await Promise.race([worker.stop(), queueFailed]);
}

/** Returns an id that all workers of the queue share and that stays when the queue is moved. */
function queueIdOf(settings: QueueSettings): string {
  const [first] = settings.pairs;
  return first === undefined ? '' : readDataFileHeader(pairPaths(first).data).queueId;
}

/** Reads the certificate again at SIGHUP. If it is wrong, the previous one stays and one line says why. */
function reloadTlsAtHangup(worker: Worker): void {
  process.on('SIGHUP', () => {
    try {
      worker.reloadTls();
      void printLine({ event: 'tls-reloaded' });
    } catch (failure) {
      printErrorLine(`the certificate was not read again: ${(failure as Error).message}`);
    }
  });
}

/** Warns of directories of the queue that other users can enter. A supervisor warns once for all its services. */
function warnOfOpenDirectories(settings: QueueSettings): void {
  if (process.connected === true) return;
  for (const { path, mode } of openDirectories(settings)) {
    printErrorLine(
      `warning: ${path} has mode ${mode.toString(8).padStart(4, '0')}, so that other users may read mail; expected 0700 (chmod 0700 ${path})`,
    );
  }
}

/** Runs the sync helper of one pair until a stop signal. */
export async function serveHelper(settings: QueueSettings, pair: number): Promise<void> {
  warnOfOpenDirectories(settings);
  await runHelper(settings, pair, stopSignal(), () => void printLine({ event: 'ready', pair }));
}

/** Options of the `gateway` command. */
export interface GatewayOptions {
  /** Path of the program that runs the services. */
  program: string;
  /** Number of workers. */
  workers: number;
  /** One port for each worker. undefined: consecutive ports from smtp.port on or, if that is 0, any free ports. */
  ports: number[] | undefined;
  /** Arguments that every service gets. */
  forwardedArguments: readonly string[];
}

/**
 * Time in milliseconds that a stopping service gets in addition to the grace period of its clients. The
 * service is then killed.
 */
const STOP_MARGIN_MS = 5000;

/** Runs helpers and workers as child processes until a stop signal. */
export async function serveGateway(settings: QueueSettings, options: GatewayOptions): Promise<void> {
  const stop = stopSignal();
  checkGatewaySettings(settings);
  warnOfOpenDirectories(settings);
  const { port, shutdownGraceMs } = settings.smtp;
  const portOf = (worker: number) => options.ports?.[worker] ?? (port === 0 ? 0 : port + worker);
  const helpers = settings.pairs.map((_, pair) => ({
    name: `helper-${pair}`,
    kind: 'helper' as const,
    args: () => ['helper', ...options.forwardedArguments, '--pair', String(pair)],
  }));
  const workers = Array.from({ length: options.workers }, (_, worker) => ({
    name: `worker-${worker}`,
    kind: 'worker' as const,
    args: (previousPort: number | undefined) => [
      'worker',
      ...options.forwardedArguments,
      '--smtp-port',
      String(previousPort ?? portOf(worker)),
    ],
  }));
  const supervisor = new Supervisor({
    program: options.program,
    services: [...helpers, ...workers],
    stopTimeoutMs: shutdownGraceMs + STOP_MARGIN_MS,
    emit: (event) => void printLine(event),
  });
  // The workers read their certificate again. A gateway without one ends at SIGHUP, as any program does.
  if (settings.smtp.tlsCert !== null) process.on('SIGHUP', () => supervisor.hangUp());
  try {
    await Promise.race([supervisor.start(), supervisor.failed, whenAborted(stop)]);
    await Promise.race([whenAborted(stop), supervisor.failed]);
  } finally {
    await supervisor.stop();
  }
}

/**
 * Returns a signal that is aborted at SIGTERM or SIGINT. Under a supervisor it is aborted at SIGTERM, or when
 * the supervisor dies. SIGINT is ignored there: Ctrl-C reaches all processes of a terminal at once, but the
 * supervisor must stop its services in order.
 */
function stopSignal(): AbortSignal {
  const stop = new AbortController();
  const isSupervised = process.connected === true;
  process.on('SIGTERM', () => stop.abort());
  process.on('SIGINT', () => {
    if (!isSupervised) stop.abort();
  });
  if (isSupervised) process.on('disconnect', () => stop.abort());
  return stop.signal;
}

/** Resolves when the signal is aborted. */
function whenAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
