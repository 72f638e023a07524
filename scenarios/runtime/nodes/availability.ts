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
nft add table ip plugpull &&
if tc qdisc add dev plugpull1 root netem delay 1ms 2>&1; then echo netem; fi`;

let probed: { availability: Availability; netem: boolean } | undefined;

/** Reports whether this process can make the network of a cluster: namespaces, links between them, and rules that cut links. */
export function nodeNetworkAvailability(): Availability {
  probed ??= probe();
  return probed.availability;
}

/** Reports whether the kernel can delay and drop packets of a node (sch_netem). */
export function hasNetem(): boolean {
  probed ??= probe();
  return probed.netem;
}

function probe(): { availability: Availability; netem: boolean } {
  const unavailable = (why: string, remedy: string) => ({
    availability: { available: false as const, why, remedy },
    netem: false,
  });
  if (process.geteuid?.() !== 0) return unavailable('network namespaces need root', 'run as root (sudo)');
  const { status, stdout, stderr, error } = spawnSync('unshare', ['--net', 'sh', '-c', PROBE], {
    encoding: 'utf8',
    timeout: PROBE_TIMEOUT_MS,
  });
  if (status === 0) return { availability: { available: true }, netem: /^netem$/m.test(stdout) };
  const missing = PROGRAMS.find(([program]) => !isInstalled(program));
  if (missing !== undefined)
    return unavailable(
      `network namespaces need ${missing[0]}, which is not installed`,
      `apt-get install ${missing[1]}`,
    );
  return unavailable(
    `a network namespace with links and rules cannot be made: ${messageOf(error ?? stderr)}`,
    'in a container: --privileged; the kernel needs veth, bridge and nf_tables',
  );
}

function isInstalled(program: string): boolean {
  return (
    spawnSync(program, ['--version'], { stdio: 'ignore', timeout: PROBE_TIMEOUT_MS }).error === undefined
  );
}
