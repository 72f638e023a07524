import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Recorder } from '../../conformance/history/recorder.js';
import type { Protocol, Receipts, Receiver } from '../../conformance/protocols/protocol.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { expandCommand, type PlaceholderValues } from '../../conformance/target-file/placeholders.js';
import { atExit } from '../host/at-exit.js';
import { processEntry } from '../host/processes.js';
import type { Registry } from '../host/registry.js';
import type { Deployment, PreparedRuntime } from '../runtime/runtime.js';
import { choosePorts, installTarget } from './site.js';
import { TargetLife } from './target-life.js';

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
  const { byName: named, submit: ports } = await choosePorts(target);
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
  const forget = atExit(() => deployment.destroyNow());
  return {
    life,
    receiver,
    ports,
    async install() {
      const command = target.crashStates?.install ?? target.install;
      if (command !== undefined)
        await installTarget(deployment, expandCommand(command, values()), INSTALL_TIMEOUT_MS);
    },
    async destroy() {
      life.end();
      try {
        await deployment.destroy();
      } finally {
        // A receiver that goes on keeps the kit alive.
        await receiver.close();
        forget();
      }
    },
  };
}
