import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { type Duplex, PassThrough } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type Dockerode from 'dockerode';
import { KitError, messageOf } from '../../../conformance/errors.js';
import { commandLine } from '../../host/command-line.js';
import { collectOutput } from '../../host/output.js';
import { sendSignal } from '../../host/processes.js';
import type { DeploymentPlan } from '../runtime.js';
import { networkOptions, podOptions } from './container-options.js';
import { type ContainerProcesses, localContainerProcesses, NO_PROCESSES } from './container-processes.js';
import { toEngineError } from './engine.js';

/**
 * Data from which a network is made: the container engine, its address, and the image of the pod, the container
 * that keeps the network.
 */
export interface NetworkContext {
  engine: Dockerode;
  address: string;
  /** Image of the pod, the container that keeps the network. The image contains Node and iptables. */
  podImage: string;
}

/**
 * Line that the pod, the container that keeps the network, prints when its rules are set and the receiver
 * answers.
 */
const READY = 'ready';
const POD_TIMEOUT_MS = 30_000;
const SINK_TIMEOUT_MS = 10_000;
/**
 * Messages of a container engine without free addresses: the first up to version 20.10, the second of later
 * versions.
 */
const NO_ADDRESSES_PATTERN = /non-overlapping IPv4 address pool|address pools have been fully subscribed/;

/**
 * The network of one deployment: a separate bridge network with one container, the pod. The pod only keeps a
 * network namespace, which all services join and which outlives their deaths. In it the services run as on
 * one machine: they call each other, are called by the kit and call the kit's receiver on 127.0.0.1.
 * Therefore one target file is right for every runtime. The container engine publishes the pod's ports on
 * this machine's loopback and removes everything with the pod; the kit changes no network rule of this
 * machine.
 */
export class ContainerNetwork {
  /** Value of `NetworkMode` for a container that joins this network. */
  readonly networkMode: string;
  readonly #pod: ContainerProcesses;
  readonly #relay: SinkRelay | undefined;

  private constructor(podId: string, pod: ContainerProcesses, relay: SinkRelay | undefined) {
    this.networkMode = `container:${podId}`;
    this.#pod = pod;
    this.#relay = relay;
  }

  /**
   * Makes the network and its pod. Both carry the run's id and are removed with all other resources of the
   * run.
   * @throws KitError target-unavailable when the container engine has no addresses left, or when the pod
   * cannot reach the receiver.
   */
  static async make(plan: DeploymentPlan, context: NetworkContext): Promise<ContainerNetwork> {
    const { engine, address } = context;
    const name = `plugpull-${plan.runId}.${randomBytes(4).toString('hex')}`;
    const network = await engine.createNetwork(networkOptions(name, plan)).catch((error: unknown) => {
      throw networkError(error, address);
    });
    let relay: SinkRelay | undefined;
    try {
      relay = await openRelay(network, plan.sink);
      const command = ['node', '-e', POD_PROGRAM, iptablesRules(plan.sink, relay), portOf(plan.sink)];
      const pod = await engine.createContainer(
        podOptions({ name, image: context.podImage, command, network: network.id }, plan),
      );
      await startPod(engine, pod);
      const { State } = await pod.inspect();
      return new ContainerNetwork(pod.id, localContainerProcesses(State.Pid, pod.id) ?? NO_PROCESSES, relay);
    } catch (error) {
      relay?.close();
      throw error;
    }
  }

  /**
   * Closes the relay, the only part of the network that runs in the kit's process. The rest is removed
   * through the container engine.
   */
  close(): void {
    this.#relay?.close();
  }

  /**
   * Kills the pod without waiting for the container engine. The pod's container stays and is removed later.
   */
  killNow(): void {
    this.close();
    for (const pid of this.#pod.pids()) sendSignal(pid, 'SIGKILL');
  }
}

/** Converts the container engine's refusal to make a network into the error that it means for the user. */
export function networkError(error: unknown, address: string): unknown {
  if (!NO_ADDRESSES_PATTERN.test(messageOf(error))) return toEngineError(error, address);
  return new KitError(
    'target-unavailable',
    `the container engine at ${address} has no addresses left for the network of this run: remove networks that nobody uses (${commandLine('clean')}, docker network prune), or give it more (default-address-pools in its daemon.json)`,
    { cause: error },
  );
}

const portOf = (sink: string): string => sink.slice(sink.lastIndexOf(':') + 1);

async function openRelay(network: Dockerode.Network, sink: string): Promise<SinkRelay | undefined> {
  if (sink === '') return undefined;
  const { IPAM } = (await network.inspect()) as { IPAM: { Config: { Gateway: string }[] } };
  return SinkRelay.open(IPAM.Config[0]?.Gateway ?? '', Number(portOf(sink)));
}

/**
 * Makes the pod's rules for `iptables-restore`. A connection from outside goes to the pod's loopback as if it
 * came from there: a PostgreSQL, for one, admits callers by their address. A connection to the receiver's
 * port on loopback goes out to the relay.
 */
function iptablesRules(sink: string, relay: SinkRelay | undefined): string {
  const toRelay =
    relay === undefined
      ? []
      : [
          `-A OUTPUT -d 127.0.0.1 -p tcp --dport ${portOf(sink)} -j DNAT --to-destination ${relay.address}`,
          '-A POSTROUTING -s 127.0.0.1 ! -o lo -p tcp -j MASQUERADE',
        ];
  return `${[
    '*nat',
    '-A PREROUTING ! -i lo -p tcp -j DNAT --to-destination 127.0.0.1',
    '-A INPUT ! -i lo -p tcp -j SNAT --to-source 127.0.0.1',
    ...toRelay,
    'COMMIT',
  ].join('\n')}\n`;
}

/**
 * The program of the pod. It sets the rules, checks that the receiver answers, and keeps running. Without the
 * check, a firewall that keeps containers from this machine would look like a target that delivers nothing.
 * `--noflush` preserves the container engine's own rules in the namespace.
 */
const POD_PROGRAM = `
const { spawnSync } = require('node:child_process');
const { connect } = require('node:net');
const [rules, sinkPort] = process.argv.slice(1);
const end = (why) => { console.log(why); process.exit(1); };
const tries = ['iptables-nft-restore', 'iptables-legacy-restore'].map((program) => () => {
  const { status, error, stderr } = spawnSync('/usr/sbin/' + program, ['--noflush'], { input: rules });
  return status === 0 ? '' : program + ': ' + (error ?? stderr);
});
const why = tries[0]() && tries[1]();
if (why) end('its rules cannot be set: ' + why);
setInterval(() => {}, 2 ** 30);
const ready = () => console.log('${READY}');
if (sinkPort === '') ready();
else {
  const socket = connect(Number(sinkPort), '127.0.0.1', () => { socket.destroy(); ready(); });
  const never = "the kit's receiver cannot be reached from it, perhaps a firewall keeps containers from this machine: ";
  socket.on('error', (error) => end(never + error.message));
  socket.setTimeout(${SINK_TIMEOUT_MS}, () => end(never + 'no answer'));
}
`;

async function startPod(engine: Dockerode, pod: Dockerode.Container): Promise<void> {
  const output = await pod.attach({ stream: true, stdout: true, stderr: true });
  const text = new PassThrough();
  engine.modem.demuxStream(output, text, text);
  const podOutput = collectOutput(text);
  const reported = new Promise<void>((resolve) => {
    text.on('data', () => {
      if (podOutput().includes('\n')) resolve();
    });
    output.once('close', resolve);
    output.once('end', resolve);
  });
  try {
    await pod.start();
    await Promise.race([reported, delay(POD_TIMEOUT_MS, undefined, { ref: false })]);
  } finally {
    // Close the attached stream: it would keep the kit alive, and only its first line is needed.
    (output as Duplex).destroy();
  }
  if (podOutput().trim() === READY) return;
  const message = podOutput().trim().replace(/\s+/g, ' ') || `it said nothing in ${POD_TIMEOUT_MS} ms`;
  throw new KitError('target-unavailable', `the network of the run's containers: ${message}`);
}

const LOOPBACK = '127.0.0.1';

/**
 * Forwards connections from an address of this machine to a port of its loopback, byte by byte, including the
 * ends of connections. The kit's receiver listens on loopback only; the relay makes it reachable from one
 * container network too.
 */
class SinkRelay {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(port: number) {
    this.#server = createServer((from) => this.#join(from, connect(port, LOOPBACK)));
    this.#server.on('error', () => {});
  }

  /**
   * Listens on any free port of `host` and forwards to `port` of loopback. Rejects when it cannot listen
   * there.
   */
  static async open(host: string, port: number): Promise<SinkRelay> {
    const relay = new SinkRelay(port);
    relay.#server.listen(0, host);
    await once(relay.#server, 'listening');
    return relay;
  }

  /** Address on which the relay listens, as host:port. */
  get address(): string {
    // A listening TCP server's address is an AddressInfo.
    const { address, port } = this.#server.address() as AddressInfo;
    return `${address}:${port}`;
  }

  /** Stops listening and breaks the open connections. May be called twice. */
  close(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #join(from: Socket, to: Socket): void {
    from.pipe(to).pipe(from);
    for (const [one, other] of [
      [from, to],
      [to, from],
    ] as const) {
      this.#sockets.add(one);
      one.setNoDelay(true);
      // Break both sides when one breaks. An orderly end needs no code: the pipe ends the other side after
      // the last byte.
      one.on('error', () => other.destroy());
      one.on('close', () => this.#sockets.delete(one));
    }
  }
}
