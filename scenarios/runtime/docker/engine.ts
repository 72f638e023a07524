import type Dockerode from 'dockerode';
import { KitError, messageOf } from '../../../conformance/errors.js';
import type { Availability } from '../../../faults/fault.js';
import { until } from '../../../faults/waiting.js';
import { commandLine } from '../../host/command-line.js';
import { bootId } from '../../host/processes.js';

/** Label of every object of a run on a container engine. Its value is the run id. */
export const RUN_LABEL = 'plugpull.run';
/** Label of every object of one deployment, such as a node of a cluster. Its value is the mark of the deployment. */
const DEPLOYMENT_LABEL = 'plugpull.deployment';
/** Label with the user id of the kit. Users share an engine, and only root sees whether the kit of another user lives. */
const USER_LABEL = 'plugpull.uid';
/** Label with the boot id of the machine of the kit, which may not be that of the engine. */
const BOOT_LABEL = 'plugpull.boot';

/** Makes the labels of every object of a run on a container engine. */
export function labelsOf(runId: string): Record<string, string> {
  return { [RUN_LABEL]: runId, [USER_LABEL]: `${process.geteuid?.() ?? 0}`, [BOOT_LABEL]: bootId() };
}

/**
 * Makes the labels of every object of one deployment of a run.
 * @param mark name of the deployment. It is unique among those of the run that live at the same time.
 */
export function deploymentLabels(runId: string, mark: string): Record<string, string> {
  return { ...labelsOf(runId), [DEPLOYMENT_LABEL]: mark };
}

const DEFAULT_ADDRESS = 'unix:///var/run/docker.sock';
const PING_TIMEOUT_MS = 3000;
const REMOVAL_TIMEOUT_MS = 15_000;
const ENGINE_GONE_CODES = new Set([
  'ECONNREFUSED',
  'ENOENT',
  'EACCES',
  'ECONNRESET',
  'EPIPE',
  'EHOSTUNREACH',
]);

/** Returns the address of this machine's engine: DOCKER_HOST, or the usual socket. */
export function engineAddress(): string {
  return process.env.DOCKER_HOST || DEFAULT_ADDRESS;
}

/**
 * Makes a client of the container engine at an address. The client sends nothing yet.
 * @param address `unix:///path` or `tcp://host:port`; the usual environment variables configure TLS.
 * @param timeoutMs limit for each call. Default: none, because a call may wait for the end of a container.
 * @throws KitError bad-usage when the address has neither form.
 */
export async function connectEngine(address: string, timeoutMs?: number): Promise<Dockerode> {
  // Load the client only here: it takes longer to load than all the rest of the kit.
  const { default: Engine } = await import('dockerode');
  const timeout = timeoutMs === undefined ? {} : { timeout: timeoutMs };
  const socket = /^unix:\/\/(\/.+)$/.exec(address)?.[1];
  if (socket !== undefined) return new Engine({ socketPath: socket, ...timeout });
  const [, host, port] = /^(?:tcp|https?):\/\/([^/:]+):(\d+)\/?$/.exec(address) ?? [];
  if (host === undefined) {
    throw new KitError(
      'bad-usage',
      `DOCKER_HOST ${address}: expected unix:///path/of/socket or tcp://host:port`,
    );
  }
  if (process.env.DOCKER_TLS_VERIFY) return new Engine();
  return new Engine({ protocol: 'http', host, port: Number(port), ...timeout });
}

/**
 * Reports whether a container engine answers at an address.
 * @throws KitError bad-usage when the address has an unknown form.
 */
export async function engineAvailability(address: string): Promise<Availability> {
  try {
    await (await connectEngine(address, PING_TIMEOUT_MS)).ping();
    return { available: true };
  } catch (error) {
    if (error instanceof KitError) throw error;
    const denied = codeOf(error) === 'EACCES';
    return {
      available: false,
      why: denied
        ? `the container engine at ${address} may not be used by this user`
        : `no container engine answers at ${address}`,
      remedy: denied
        ? 'add the user to the group docker'
        : `as root: ${commandLine('setup')} (installs docker.io and starts it)`,
    };
  }
}

/**
 * Converts a failed call into the error that it means: a container engine that is gone is not the target's
 * fault.
 */
export function toEngineError(error: unknown, address: string): unknown {
  if (error instanceof KitError || !ENGINE_GONE_CODES.has(codeOf(error) ?? '')) return error;
  return new KitError(
    'target-unavailable',
    `the container engine at ${address} has gone: ${messageOf(error)}`,
    {
      cause: error,
    },
  );
}

/** Returns the HTTP status of a container engine's refusal; undefined for other failures. */
export function statusOf(error: unknown): number | undefined {
  if (error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number')
    return error.statusCode;
  return undefined;
}

/**
 * Waits for work on an object that may be gone already, or be in the wanted state already.
 * @returns false when the object is gone or already in the wanted state.
 */
export async function tolerateGone(work: Promise<unknown>): Promise<boolean> {
  try {
    await work;
    return true;
  } catch (error) {
    if ([304, 404, 409].includes(statusOf(error) ?? 0)) return false;
    throw error;
  }
}

/**
 * Lists the ids of the runs of this user and this boot that have containers or networks on the engine. A run with an
 * object of anybody else, or without these labels, is left out.
 */
export async function labelledRuns(engine: Dockerode): Promise<string[]> {
  const filters = { label: [RUN_LABEL] };
  const containers = await engine.listContainers({ all: true, filters });
  const networks = await engine.listNetworks({ filters: JSON.stringify(filters) });
  return ownRunsOf([...containers, ...networks].map(({ Labels }) => Labels ?? {}));
}

/** Returns the ids of the runs all of whose objects have the labels of this user and this boot. */
export function ownRunsOf(labels: readonly Readonly<Record<string, string>>[]): string[] {
  const isOwn = new Map<string, boolean>();
  for (const one of labels) {
    const runId = one[RUN_LABEL];
    if (runId === undefined) continue;
    const own = Object.entries(labelsOf(runId)).every(([name, value]) => one[name] === value);
    isOwn.set(runId, own && isOwn.get(runId) !== false);
  }
  return [...isOwn].flatMap(([runId, own]) => (own ? [runId] : []));
}

/**
 * Removes every container, network and volume of a run.
 * @returns the number of removed objects.
 * @throws Error when the container engine does not answer, or when an object cannot be removed.
 */
export function removeRunResources(engine: Dockerode, runId: string): Promise<number> {
  return removeLabelled(engine, `${RUN_LABEL}=${runId}`);
}

/**
 * Removes every container, network and volume of one deployment.
 * @throws Error as `removeRunResources` does.
 */
export async function removeDeployment(engine: Dockerode, mark: string): Promise<void> {
  await removeLabelled(engine, `${DEPLOYMENT_LABEL}=${mark}`);
}

async function removeLabelled(engine: Dockerode, label: string): Promise<number> {
  const filters = { label: [label] };
  const seen = new Set<string>();
  const containers = async () => engine.listContainers({ all: true, filters });
  // Try again: the engine refuses a removal that another client has begun, and completes it a moment later.
  const gone = await until(
    async () => {
      const list = await containers();
      await Promise.all(
        list.map(async ({ Id }) => {
          seen.add(Id);
          await tolerateGone(engine.getContainer(Id).remove({ force: true, v: true }));
        }),
      );
      return list.length === 0;
    },
    REMOVAL_TIMEOUT_MS,
    undefined,
    30,
  );
  if (!gone)
    throw new Error(`containers ${(await containers()).map(({ Id }) => Id).join(', ')} cannot be removed`);
  for (const { Id } of await engine.listNetworks({ filters: JSON.stringify(filters) })) {
    seen.add(Id);
    await tolerateGone(engine.getNetwork(Id).remove());
  }
  const { Volumes } = await engine.listVolumes({ filters: JSON.stringify(filters) });
  for (const { Name } of Volumes ?? []) {
    seen.add(Name);
    await tolerateGone(engine.getVolume(Name).remove());
  }
  return seen.size;
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}
