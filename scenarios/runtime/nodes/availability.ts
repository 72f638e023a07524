import { spawnSync } from 'node:child_process';
import { messageOf } from '../../../conformance/errors.js';
import type { Availability } from '../../../faults/fault.js';

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
nft add table ip plugpull`;

let availability: Availability | undefined;

/** Reports whether this process can make the network of a cluster: namespaces, links between them, and rules that cut links. */
export function nodeNetworkAvailability(): Availability {
  availability ??= probe();
  return availability;
}

function probe(): Availability {
  const isRoot = process.geteuid?.() === 0;
  if (!isRoot)
    return {
      available: false,
      why: 'network namespaces need root',
      remedy: 'run as root (sudo)',
    };
  const { status, stderr, error } = spawnSync('unshare', ['--net', 'sh', '-c', PROBE], {
    encoding: 'utf8',
    timeout: PROBE_TIMEOUT_MS,
  });
  if (status === 0) return { available: true };
  const missing = PROGRAMS.find(([program]) => !isInstalled(program));
  if (missing !== undefined)
    return {
      available: false,
      why: `network namespaces need ${missing[0]}, which is not installed`,
      remedy: `apt-get install ${missing[1]}`,
    };
  return {
    available: false,
    why: `a network namespace with links and rules cannot be made: ${messageOf(error ?? stderr)}`,
    remedy: 'in a container: --privileged; the kernel needs veth, bridge and nf_tables',
  };
}

function isInstalled(program: string): boolean {
  return (
    spawnSync(program, ['--version'], { stdio: 'ignore', timeout: PROBE_TIMEOUT_MS }).error === undefined
  );
}
