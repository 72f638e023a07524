import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import type { Recorder } from '../../conformance/history/recorder.js';
import type { Protocol, Receipts, Receiver } from '../../conformance/protocols/protocol.js';
import type { Target } from '../../conformance/target/definition.js';
import {
  expandCommand,
  type PlaceholderValues,
  portNames,
  submitPorts,
} from '../../conformance/target/placeholders.js';
import type { Registry } from '../residue/registry.js';
import { TargetLife } from '../run/target-life.js';
import { freePort } from '../runtime/ports.js';
import { processEntry } from '../runtime/processes.js';
import type { Deployment, PreparedRuntime } from '../runtime/runtime.js';

export interface LaunchPlan {
  target: Target;
  protocol: Protocol;
  runtime: PreparedRuntime;
  registry: Registry;
  /** Of the run whose messages are received; default: the registry's. */
  messagesOf?: string;
  /** Gets the starts and exits of services. */
  recorder: Pick<Recorder, 'record'>;
  receipts: Receipts;
  dataDir: string;
  /** Gets logs and scratch. */
  dir: string;
  signal: AbortSignal;
  /** Tells its processes from those of the same run that live at the same time. */
  lane?: string;
}

/** A target on a data directory with a receiver beside it; not started yet. */
export interface Launched {
  life: TargetLife;
  receiver: Receiver;
  ports: readonly number[];
  /** Runs the install command for crash states, or the usual one. @throws KitError when it fails. */
  install(): Promise<void>;
  /** Kills what runs and closes the receiver; may be called twice. */
  destroy(): Promise<void>;
}

const INSTALL_TIMEOUT_MS = 60_000;

/** Puts a target onto a data directory. */
export async function launch(plan: LaunchPlan): Promise<Launched> {
  const { target, protocol, runtime, registry, dataDir, dir, signal } = plan;
  const named = new Map<string, number>();
  for (const name of portNames(target)) named.set(name, await freePort(new Set(named.values())));
  const ports = submitPorts(target).map((name) => named.get(name) ?? 0);
  const perSession = target.guarantee.inDeliveryPerSession;
  const receiver = await protocol.receive(ports, {
    run: plan.messagesOf ?? registry.runId,
    receipts: plan.receipts,
    ...(perSession === undefined ? {} : { inDeliveryPerSession: perSession }),
  });
  for (const folder of ['logs', 'scratch']) mkdirSync(join(dir, folder), { recursive: true });
  const values = (service?: string): PlaceholderValues => ({
    ...runtime.placesOf(service),
    data: dataDir,
    sink: runtime.sinkFor?.(receiver.sink) ?? receiver.sink,
    ports: named,
  });
  let life: TargetLife | undefined;
  const deployment: Deployment = runtime.deploy({
    // What is marked as of this run and service is taken for its own, and killed with it.
    runId: plan.lane === undefined ? registry.runId : `${registry.runId}-${plan.lane}`,
    services: Object.entries(target.services).map(([name, { command }]) => ({
      name,
      command: expandCommand(command, values(name)),
    })),
    workingDir: join(dir, 'scratch'),
    logDir: join(dir, 'logs'),
    dataDir,
    ports: [...named.values()],
    sink: receiver.sink,
    registry,
    onStarted: (service, incarnation, pid) => {
      registry.made({ kind: 'process', pid, startTicks: processEntry(pid)?.startTicks ?? 0 });
      life?.started(service, incarnation);
    },
    onExited: (...exit) => life?.exited(...exit),
  });
  life = new TargetLife(deployment, {
    protocol,
    ports,
    recorder: plan.recorder,
    signal,
    onCrash: () => {},
  });
  const now = () => deployment.destroyNow();
  process.once('exit', now);
  return {
    life,
    receiver,
    ports,
    install: () => runInstall(target, deployment, values()),
    async destroy() {
      life.end();
      await deployment.destroy();
      await receiver.close();
      process.removeListener('exit', now);
    },
  };
}

async function runInstall(target: Target, deployment: Deployment, values: PlaceholderValues): Promise<void> {
  const command = target.crashStates?.install ?? target.install;
  if (command === undefined) return;
  const result = await deployment.runCommand('install', expandCommand(command, values), INSTALL_TIMEOUT_MS);
  if (result.code === 0) return;
  const how = result.timedOut
    ? `took longer than ${INSTALL_TIMEOUT_MS} ms`
    : `ended with ${result.signal ?? `code ${result.code}`}`;
  const words = `${result.stderr}${result.stdout}`.trim().split('\n').slice(-3).join(' | ');
  throw new KitError('target-unavailable', `the target's install command ${how}: ${words}`);
}
