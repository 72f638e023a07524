import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../../conformance/errors.js';
import type { Recorder } from '../../../conformance/history/recorder.js';
import type { Protocol } from '../../../conformance/protocols/protocol.js';
import { recordReceipts } from '../../../conformance/protocols/receipts.js';
import type { Target } from '../../../conformance/target-file/definition.js';
import { removeTree } from '../../../faults/files/remove-tree.js';
import type { BlocklogDisk } from '../../../faults/power/blocklog.js';
import { recordingDirectory } from '../../../faults/power/blocklog-availability.js';
import type { Filesystem } from '../../../faults/power/filesystem.js';
import { sleep } from '../../../faults/waiting.js';
import { atExit } from '../../host/at-exit.js';
import type { Registry } from '../../host/registry.js';
import { INSTALL_TIMEOUT_MS, type LaunchedTarget, launch, scratchDirOf } from '../../round/launch.js';
import type { LaunchPlace } from '../../round/launch-place.js';
import { type Unwritten, WriteWitness } from '../../round/write-witness.js';
import { createRecordedDisk, DATA_DIR, makeDurableDirectory } from '../../runtime/disks/local-disk.js';
import type { PreparedRuntime } from '../../runtime/runtime.js';
import { DISK_BYTES, LogPositionLedger, runLoad, START_TIMEOUT_MS } from '../record/record.js';
import { type Instant, Instants } from './instants.js';
import { copyFiles, copyPath, whileStopped } from './live-copies.js';

/** The options of `recordCluster`. */
export interface ClusterRecordOptions {
  target: Target;
  /** Names of the nodes, in the order of the target file. */
  nodes: readonly string[];
  protocol: Protocol;
  runtime: PreparedRuntime;
  registry: Registry;
  recorder: Recorder;
  place: LaunchPlace;
  /** Directory of the evidence. */
  dir: string;
  filesystem: Filesystem;
  seed: number;
  /** Duration of the load, in milliseconds. */
  loadMs: number;
  signal: AbortSignal;
  progress(line: string): void;
}

/** The recorded disk of one node. */
export interface RecordedNode {
  name: string;
  /** Path of the image of the device before the run. */
  image: string;
  /** Path of the log of all writes and flushes. */
  log: string;
  /** Number of log entries at the last instant. Later ones do not count. */
  end: number;
  /** Path of the node's `{scratch}`. */
  scratch: string;
}

/** A run of a cluster on recorded disks. */
export interface RecordedCluster {
  /** Id of the recorded run. Every message contains it. */
  id: string;
  nodes: readonly RecordedNode[];
  instants: readonly Instant[];
  /** Directory with the copies of the nodes' files; see `copyPath`. */
  copies: string;
  filesystem: Filesystem;
  /** Reason why the disks show nothing about the messages: no node stores them there. */
  unwritten: Unwritten | undefined;
  writtenOutside: readonly string[];
  escaped: readonly string[];
  /** Removes the images, the logs and the copies. */
  remove(): void;
}

/** Time between two samples of the lengths of the logs, in milliseconds. */
const SAMPLE_MS = 6;
/** Number of moments at which the files of all nodes are copied. */
const COPIES = 4;

/** Installs and starts a cluster, each node on a recorded disk, loads it, and stops it. */
export async function recordCluster(options: ClusterRecordOptions): Promise<RecordedCluster> {
  const { nodes, registry, filesystem, dir } = options;
  const copies = join(recordingDirectory() ?? dir, `plugpull-${registry.runId}-copies`);
  const disks: BlocklogDisk[] = [];
  const removeNow = () => {
    for (const disk of disks) disk.remove();
    removeTree(copies);
    registry.gone({ kind: 'directory', path: copies });
  };
  registry.made({ kind: 'directory', path: copies });
  const cancelAtExit = atExit(removeNow);
  const remove = () => {
    cancelAtExit();
    removeNow();
  };
  try {
    mkdirSync(copies, { mode: 0o700 });
    for (const node of nodes) {
      const plan = { name: `recording-${node}`, mountPoint: mountPointOf(dir, node), sizeBytes: DISK_BYTES };
      disks.push(await createRecordedDisk(plan, filesystem, registry));
      makeDurableDirectory(dataDirOf(dir, node));
    }
    return { ...(await recordOn(options, disks, copies)), id: registry.runId, copies, filesystem, remove };
  } catch (error) {
    const lost = disks.find((disk) => disk.lost !== undefined)?.lost;
    remove();
    throw lost === undefined ? error : new KitError('kit-failed', lost);
  }
}

const mountPointOf = (dir: string, node: string): string => join(dir, 'nodes', node, 'disk');
const dataDirOf = (dir: string, node: string): string => join(mountPointOf(dir, node), DATA_DIR);

async function recordOn(
  options: ClusterRecordOptions,
  disks: readonly BlocklogDisk[],
  copies: string,
): Promise<Pick<RecordedCluster, 'nodes' | 'instants' | 'unwritten' | 'writtenOutside' | 'escaped'>> {
  const { target, nodes, registry, recorder, dir, signal, progress } = options;
  const instants = new Instants(() => disks.map((disk) => disk.completeEntries()));
  const ledger = new LogPositionLedger(registry.runId, recorder, (what) => {
    // What the target writes because of an offer may be in flight already at the last instant.
    if (what === 'offered') return instants.last;
    instants.noteConfirmed();
    return instants.next;
  });
  const escaped: string[] = [];
  const launched = await launch({
    ...options,
    ...{ dataDir: '', nodeDataDirs: new Map(nodes.map((node) => [node, dataDirOf(dir, node)])) },
    onFailedStart: progress,
    onEscaped: (command) => void escaped.push(command),
    logDirLabel: 'logs',
    receipts: ledger.trackReceipts(recordReceipts(recorder)),
  });
  try {
    recorder.record({ kind: 'installed', round: 1, nodes: [...nodes] });
    await launched.install(target.crashStates?.install ?? target.install, INSTALL_TIMEOUT_MS);
    const witnesses = nodes.map(
      (node) =>
        new WriteWitness({
          ...{ tally: ledger.tally, dataDir: dataDirOf(dir, node), ignored: [join(dir, 'logs')] },
          scratchDir: join(dir, 'scratch'),
        }),
    );
    const start = await launched.supervisor.bringUp(startTimeoutMs(target), 'first');
    if (!start.ready)
      throw new KitError(
        'target-unavailable',
        `the target did not get ready: ${start.detail}; its logs are in ${join(dir, 'logs')}`,
      );
    for (const witness of witnesses) await witness.noteReady(signal);
    instants.sample();
    const sampling = setInterval(() => void instants.sample(), SAMPLE_MS).unref();
    const copying = copyAtIntervals(options, launched, instants, copies);
    let producers: Awaited<ReturnType<typeof runLoad>>;
    try {
      producers = await runLoad(options, ledger, launched, options.loadMs);
    } finally {
      clearInterval(sampling);
      await copying;
    }
    // One that stores its messages is enough: the others may be witnesses that only vote.
    const unwritten: (Unwritten | undefined)[] = [];
    for (const [index, witness] of witnesses.entries())
      unwritten.push(
        await witness.inspect(launched.nodes[index]?.services ?? [], (bytes) => ledger.outstandingIn(bytes)),
      );
    launched.supervisor.expectExits();
    await launched.destroy();
    await producers.stop();
    const lost = disks.find((disk) => disk.lost !== undefined)?.lost;
    if (lost !== undefined) throw new KitError('kit-failed', lost);
    return {
      nodes: nodes.map((name, index) => {
        const files = disks[index]?.endRecording() ?? { image: '', log: '' };
        const end = instants.all.at(-1)?.lengths[index] ?? 0;
        return { name, ...files, end, scratch: scratchDirOf(dir, name) };
      }),
      instants: instants.all,
      unwritten: unwritten.every((one) => one !== undefined) ? unwritten[0] : undefined,
      writtenOutside: [...new Set(witnesses.flatMap((witness) => witness.writtenOutside))],
      escaped,
    };
  } finally {
    await launched.destroy();
  }
}

/** Returns the timeout of the first start, in which the nodes must find each other. */
function startTimeoutMs({ guarantee }: Target): number {
  return START_TIMEOUT_MS + 1000 * (guarantee.cluster?.electionSeconds ?? 0);
}

/**
 * Copies the files of all nodes at a few moments of the load. A failure costs only the states that need the copies. The
 * last moment is before the end of the load.
 */
async function copyAtIntervals(
  { loadMs, nodes, dir, signal, progress }: ClusterRecordOptions,
  launched: LaunchedTarget,
  instants: Instants,
  copies: string,
): Promise<void> {
  const services = launched.nodes.flatMap((node) => node.services);
  const beginMs = performance.now();
  for (let number = 1; number <= COPIES && !signal.aborted; number++) {
    await sleep(beginMs + (loadMs * number) / (COPIES + 1) - performance.now(), signal);
    if (signal.aborted || performance.now() > beginMs + loadMs) return;
    let instant: number | undefined;
    try {
      await whileStopped(services, async () => {
        instant = instants.sample(true);
        if (instant === undefined) return;
        const at = instant;
        await Promise.all(nodes.map((node) => copyFiles(dataDirOf(dir, node), copyPath(copies, node, at))));
      });
    } catch (error) {
      progress(
        `the files of the nodes could not be copied: ${error instanceof Error ? error.message : error}`,
      );
      if (instant === undefined) return;
      instants.dropCopies(instant);
      for (const node of nodes) rmSync(copyPath(copies, node, instant), { force: true });
      return;
    }
  }
}
