import { spawnSync } from 'node:child_process';
import { messageOf } from '../../../conformance/errors.js';
import type { Availability } from '../../../faults/fault.js';

/**
 * Command that runs another one in a user namespace with a network and mounts of its own. The other one stays the same user,
 * and it may make networks and mounts there, also by the programs that it starts.
 */
export const USER_NAMESPACE: readonly string[] = [
  'unshare',
  ...['--user', '--map-current-user', '--keep-caps', '--net'],
  // What others mount on the machine later is seen there, and not the other way round.
  ...['--mount', '--propagation', 'slave', '--'],
];

/** Programs that are used, and the packages of Debian that have them. */
const PROGRAMS = [
  ['unshare', 'util-linux'],
  ['nsenter', 'util-linux'],
  ['ip', 'iproute2'],
  ['nft', 'nftables'],
] as const;

const PROBE_TIMEOUT_MS = 10_000;

/** Commands that fail where a network of nodes cannot be made. They run in a namespace that ends with them. */
const PROBE = `
ip link add name plugpull0 type bridge &&
ip link add name plugpull1 type veth peer name plugpull2 &&
nft add table ip plugpull &&
if tc qdisc add dev plugpull1 root netem delay 1ms 2>&1; then echo netem; fi`;

/**
 * How this process can have the network of a cluster. `own`: it makes it itself. `user-namespace`: it must be started again in
 * a user namespace first; see `USER_NAMESPACE`.
 */
export type NodeNetworkMethod =
  | { how: 'own' | 'user-namespace'; netem: boolean }
  | { how: 'none'; why: string; remedy: string };

let method: NodeNetworkMethod | undefined;

/** Finds out how this process can have the network of a cluster: namespaces, links between them, and rules that cut links. */
export function nodeNetworkMethod(): NodeNetworkMethod {
  method ??= probe();
  return method;
}

/** Reports whether this process itself can make the network of a cluster. */
export function nodeNetworkAvailability(): Availability {
  const found = nodeNetworkMethod();
  if (found.how === 'own') return { available: true };
  if (found.how === 'none') return { available: false, why: found.why, remedy: found.remedy };
  return {
    available: false,
    why: 'network namespaces need root, or a user namespace in which the kit is started again',
    remedy: 'run as root (sudo)',
  };
}

function probe(): NodeNetworkMethod {
  const own = run(['unshare', '--net', '--']);
  if (own.ok) return { how: 'own', netem: own.netem };
  const missing = PROGRAMS.find(([program]) => !isInstalled(program));
  if (missing !== undefined)
    return {
      how: 'none',
      why: `network namespaces need ${missing[0]}, which is not installed`,
      remedy: `apt-get install ${missing[1]}`,
    };
  if (process.geteuid?.() === 0)
    return {
      how: 'none',
      why: `a network namespace with links and rules cannot be made: ${own.why}`,
      remedy: 'in a container: --privileged; the kernel needs veth, bridge and nf_tables',
    };
  const asUser = run(USER_NAMESPACE);
  if (asUser.ok) return { how: 'user-namespace', netem: asUser.netem };
  return {
    how: 'none',
    why: `network namespaces need root or a user namespace, which failed: ${asUser.why}`,
    remedy:
      'run as root (sudo), or let users make namespaces (sysctl kernel.apparmor_restrict_unprivileged_userns=0)',
  };
}

type ProbeResult = { ok: true; netem: boolean } | { ok: false; why: string };

function run(namespace: readonly string[]): ProbeResult {
  const [program = '', ...args] = [...namespace, 'sh', '-c', PROBE];
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    encoding: 'utf8',
    timeout: PROBE_TIMEOUT_MS,
  });
  if (status === 0) return { ok: true, netem: /^netem$/m.test(stdout) };
  return { ok: false, why: messageOf(error ?? stderr) };
}

function isInstalled(program: string): boolean {
  return (
    spawnSync(program, ['--version'], { stdio: 'ignore', timeout: PROBE_TIMEOUT_MS }).error === undefined
  );
}
