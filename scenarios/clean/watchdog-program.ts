import { createInterface } from 'node:readline';
import { runTool, type StoppedDisk } from '../../faults/power/mounts.js';
import { until } from '../../faults/waiting.js';
import { processEntry, sendSignal } from '../host/processes.js';
import { registeredRuns } from '../host/registry.js';
import type { WatchdogMessage } from '../host/watchdog.js';

// The watchdog of one kit process. It reads messages from a pipe. The pipe ends when the kit has died, however it
// died. Then the watchdog resumes the disks that the kit has stopped, and removes what the kit's runs have made. The
// evidence of a run stays until `plugpull clean`. Its only argument is the process id of the kit.

/** Upper bound for the wait until a kit whose pipe has ended is gone, in ms. */
const KIT_EXIT_TIMEOUT_MS = 10_000;
/** Upper bound for the clean-up, in ms. A tool that hangs must not keep the watchdog alive for ever. */
const CLEAN_UP_TIMEOUT_MS = 120_000;

const runs = new Map<string, string>();
const stopped = new Map<string, { resume: () => void; timer: NodeJS.Timeout }>();

/** Returns a function that resumes a disk, if it is still the same one. */
function resumerOf(disk: StoppedDisk): () => void {
  if (disk.kind === 'mapping')
    return () => {
      runTool('dmsetup', ['resume', '--noudevsync', disk.path.replace('/dev/mapper/', '')]);
    };
  const startTicks = processEntry(disk.pid)?.startTicks;
  return () => {
    if (processEntry(disk.pid)?.startTicks === startTicks) sendSignal(disk.pid, 'SIGCONT');
  };
}

function resume(key: string): void {
  const entry = stopped.get(key);
  stopped.delete(key);
  clearTimeout(entry?.timer);
  try {
    entry?.resume();
  } catch {
    // The device is gone, or a tool is missing. The other disks must still be resumed.
  }
}

function handle(line: string): void {
  const message = JSON.parse(line) as WatchdogMessage;
  if (message.kind === 'watch') runs.set(message.runId, message.stateDir);
  else if (message.kind === 'forget') runs.delete(message.runId);
  else {
    const key = JSON.stringify(message.disk);
    if (message.kind === 'resumed') {
      clearTimeout(stopped.get(key)?.timer);
      stopped.delete(key);
    } else {
      // The kit may say again that a disk is stopped on purpose: then the time counts from there.
      clearTimeout(stopped.get(key)?.timer);
      const timer = setTimeout(() => resume(key), message.deadlineMs);
      stopped.set(key, { resume: resumerOf(message.disk), timer });
    }
  }
}

/** Removes what the runs of the dead kit have left. */
async function cleanUp(kitPid: number, kitStartTicks: number | undefined): Promise<void> {
  for (const key of [...stopped.keys()]) resume(key);
  if (runs.size === 0) return;
  // The kernel closes the pipe before the process is gone.
  const isGone = () => {
    const kit = processEntry(kitPid);
    return kit === undefined || kit.state === 'Z' || kit.startTicks !== kitStartTicks;
  };
  if (!(await until(isGone, KIT_EXIT_TIMEOUT_MS))) return;
  // Load this only now: it takes a second of processor time on a small machine, which most runs never need.
  const { cleanRun } = await import('./clean.js');
  for (const [runId, stateDir] of runs) {
    const run = registeredRuns(stateDir).find((one) => one.runId === runId);
    if (run !== undefined && !run.alive) await cleanRun(run, 'keep-evidence');
  }
}

// A signal to every process of a session or of a CI job must not end the watchdog before the kit.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
const kitPid = Number(process.argv[2]);
const kitStartTicks = processEntry(kitPid)?.startTicks;
const lines = createInterface({ input: process.stdin });
lines.on('line', handle);
lines.on('close', () => {
  setTimeout(() => process.exit(1), CLEAN_UP_TIMEOUT_MS).unref();
  cleanUp(kitPid, kitStartTicks).then(
    () => process.exit(0),
    () => process.exit(1),
  );
});
