import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { type Duplex, PassThrough } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import type Dockerode from 'dockerode';
import { KitError, messageOf } from '../../../conformance/errors.js';
import { collectOutput } from '../../host/output.js';
import { sendSignal } from '../../host/processes.js';
import type { DeploymentPlan } from '../runtime.js';
import { networkOptions, podOptions } from './container-options.js';
import { type ContainerProcesses, localContainerProcesses, NO_PROCESSES } from './container-processes.js';
import { toEngineError } from './engine.js';

export interface NetworkContext {
  engine: Dockerode;
  address: string;
  /** An image with Node and iptables. */
  podImage: string;
}

/** What the pod says when the rules hold and the receiver answers. */
const READY = 'ready';
const POD_TIMEOUT_MS = 30_000;
const SINK_TIMEOUT_MS = 10_000;
/** Of engines 20.10 and earlier, and of later ones. */
const NO_ADDRESSES_PATTERN = /non-overlapping IPv4 address pool|address pools have been fully subscribed/;

/**
 * The network of one deployment: a bridge network of its own, and on it one container, the pod, that does nothing but keep
 * a network namespace, which all services join and which outlives their deaths. In it they are as on one machine: they
 * call each other, are called by the kit and call the kit's receiver on 127.0.0.1, so that one target file is right for
 * every runtime. The engine publishes the pod's ports on this machine's loopback and takes all of it away with the pod;
 * the kit changes no rule of this machine.
 */
export class ContainerNetwork {
  /** For a container that joins it. */
  readonly networkMode: string;
  readonly #pod: ContainerProcesses;
  readonly #relay: SinkRelay | undefined;

  private constructor(podId: string, pod: ContainerProcesses, relay: SinkRelay | undefined) {
    this.networkMode = `container:${podId}`;
    this.#pod = pod;
    this.#relay = relay;
  }

  /**
   * What is made carries the run's id, and is removed with all that does.
   * @throws KitError target-unavailable when the engine has no addresses left, or the receiver cannot be reached from inside.
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

  /** The kit's own part of it; what the engine has is removed there. */
  close(): void {
    this.#relay?.close();
  }

  /** Kills the pod without waiting for the engine; its container stays, to be removed later. */
  killNow(): void {
    this.close();
    for (const pid of this.#pod.pids()) sendSignal(pid, 'SIGKILL');
  }
}

/** A network that was refused as what it means. */
export function networkError(error: unknown, address: string): unknown {
  if (!NO_ADDRESSES_PATTERN.test(messageOf(error))) return toEngineError(error, address);
  return new KitError(
    'target-unavailable',
    `the container engine at ${address} has no addresses left for the network of this run: remove networks that nobody uses (plugpull clean, docker network prune), or give it more (default-address-pools in its daemon.json)`,
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
 * What comes to the pod from outside goes to its loopback, as if it came from there: a PostgreSQL, for one, lets in by
 * the caller's address. What is sent to the receiver's port on loopback goes out to the relay.
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
 * The program of the pod: sets the rules, sees whether the receiver answers, and stays. A firewall that keeps containers from
 * this machine would otherwise look like a target that delivers nothing. The engine has rules of its own there, which stay.
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
    // An attached stream keeps the kit alive; whoever has read the first line needs no more.
    (output as Duplex).destroy();
  }
  if (podOutput().trim() === READY) return;
  const message = podOutput().trim().replace(/\s+/g, ' ') || `it said nothing in ${POD_TIMEOUT_MS} ms`;
  throw new KitError('target-unavailable', `the network of the run's containers: ${message}`);
}

const LOOPBACK = '127.0.0.1';

/**
 * Hands connections to an address of this machine on to a port of its loopback, byte by byte, their ends too. The kit's
 * receiver listens on loopback only; through this it is reached from one network of containers besides.
 */
class SinkRelay {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(port: number) {
    this.#server = createServer((from) => this.#join(from, connect(port, LOOPBACK)));
    this.#server.on('error', () => {});
  }

  /** Listens on any port of `host`; hands on to `port` of loopback. Rejects when it cannot listen there. */
  static async open(host: string, port: number): Promise<SinkRelay> {
    const relay = new SinkRelay(port);
    relay.#server.listen(0, host);
    await once(relay.#server, 'listening');
    return relay;
  }

  /** host:port */
  get address(): string {
    // A listening TCP server's address is an AddressInfo.
    const { address, port } = this.#server.address() as AddressInfo;
    return `${address}:${port}`;
  }

  /** Breaks what is open; may be called twice. */
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
      // A connection that breaks breaks on both sides; one that ends has been ended by the pipe, after its last byte.
      one.on('error', () => other.destroy());
      one.on('close', () => this.#sockets.delete(one));
    }
  }
}
