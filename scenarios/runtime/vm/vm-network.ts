import type Dockerode from 'dockerode';
import { KitError, messageOf } from '../../../conformance/errors.js';
import { runScript } from '../../../faults/power/host.js';
import type { Registry } from '../../host/registry.js';
import { removeRunResources } from '../docker/engine.js';
import { knownNode, NodeLinks } from '../nodes/node-links.js';
import type { NodeNetwork } from '../nodes/node-network.js';
import { PREFIX_BITS, subnetOf } from '../nodes/subnets.js';
import { withEnd } from '../nodes/with-end.js';
import type { Machine } from './lab/machine.js';

const TIMEOUT_MS = 60_000;
/** File of the lab VM with the names and addresses of the nodes. It is /etc/hosts of the containers of nodes. */
export const HOSTS_FILE = '/run/plugpull-hosts';

/**
 * Script that removes the network of a cluster from the lab VM, with every process in it. One run at a time has the machine, so
 * all networks there are of runs that have ended.
 */
const REMOVE = `
nft delete table ip plugpull 2>/dev/null || true
ip link delete dev plugpull 2>/dev/null || true
for space in $(ip netns list | sed -n 's/^\\(plugpull-[^ ]*\\).*/\\1/p'); do
  for pid in $(ip netns pids "$space"); do kill -KILL "$pid" 2>/dev/null || true; done
  ip netns delete "$space"
done`;

/**
 * Script that makes the network. Its values: the address of the machine, the length of the prefix, and for each node its name, its
 * address, and the address that the forwarded ports of the kit go to. The bridge has a namespace of its own: in that of the
 * machine, the container engine drops what a bridge forwards. The rules of the engine let pass only what it knows, so the
 * forwarded packets need a rule in its chain for others.
 */
const MAKE = `${REMOVE}
modprobe -a nf_tables sch_netem
kit=$1; bits=$2; shift 2
bridge=plugpull-_bridge
echo 1 > /proc/sys/net/ipv4/ip_forward
ip netns add $bridge
ip -n $bridge link add name bridge0 type bridge forward_delay 0 stp_state 0 mcast_snooping 0
ip -n $bridge link set dev bridge0 up
ip link add name plugpull type veth peer name kit netns $bridge
ip link set dev plugpull up
ip address add "$kit/$bits" dev plugpull
ip -n $bridge link set dev kit master bridge0 up
echo '127.0.0.1 localhost' > ${HOSTS_FILE}
rules=
while [ $# -gt 0 ]; do
  node=$1; address=$2; outer=$3; shift 3
  space=plugpull-$node
  ip netns add "$space"
  ip -n "$space" link set dev lo up
  ip -n "$space" link add name eth0 type veth peer name "p-$node" netns $bridge
  ip -n "$space" link set dev eth0 up
  ip -n "$space" address add "$address/$bits" dev eth0
  ip -n $bridge link set dev "p-$node" master bridge0 up
  ip address replace "$outer/24" dev eth0
  echo "$address $node" >> ${HOSTS_FILE}
  rules="$rules    iifname eth0 ip daddr $outer dnat to $address
"
done
nft -f - << RULES
table ip plugpull {
  chain before {
    type nat hook prerouting priority -110;
$rules  }
  chain after {
    type nat hook postrouting priority 110;
    oifname plugpull masquerade
  }
}
RULES
for way in '-i eth0 -o plugpull' '-i plugpull -o eth0'; do
  iptables -C FORWARD $way -j ACCEPT 2>/dev/null || iptables -I FORWARD $way -j ACCEPT
done`;

/** Addresses of a node in the lab VM outside its network. */
export interface OuterAddresses {
  /** Address of this machine's loopback at which the kit reaches the node. */
  kit: string;
  /** Address of the lab VM to which the kit's ports are forwarded. */
  guest: string;
}

/** @param index number of the node, from 0. */
export function outerAddresses(index: number): OuterAddresses {
  return { kit: `127.0.0.${32 + index}`, guest: `10.0.2.${32 + index}` };
}

/** Path of the namespace of a node in the lab VM. */
export const namespaceFile = (node: string): string => `/run/netns/plugpull-${node}`;

/** Makes the networks of the clusters of one run in the lab VM, one after the other. */
export class VmNetworks {
  readonly #machine: Pick<Machine, 'agent' | 'address'>;
  readonly #engine: Dockerode;
  /** The last removal. The next network waits for it. */
  #removed: Promise<unknown> = Promise.resolve();

  constructor(machine: Pick<Machine, 'agent' | 'address'>, engine: Dockerode) {
    this.#machine = machine;
    this.#engine = engine;
  }

  /**
   * Makes the network of a cluster: a network namespace per node. The kit reaches the nodes through forwarded ports.
   * @throws KitError target-unavailable when it cannot be made.
   */
  async make(
    nodes: readonly string[],
    registry: Pick<Registry, 'runId' | 'made' | 'gone'>,
  ): Promise<NodeNetwork> {
    await this.#removed;
    const { agent, address } = this.#machine;
    const subnet = subnetOf(0);
    const addresses = new Map(nodes.map((node, index) => [node, subnet.node(index)]));
    const kitAddresses = new Map(nodes.map((node, index) => [node, outerAddresses(index).kit]));
    const values = nodes.flatMap((node, index) => [node, subnet.node(index), outerAddresses(index).guest]);
    try {
      await runScript(agent, MAKE, [subnet.kit, `${PREFIX_BITS}`, ...values], TIMEOUT_MS);
    } catch (error) {
      throw new KitError(
        'target-unavailable',
        `the network of the nodes cannot be made in the lab VM: ${messageOf(error)}`,
        { cause: error },
      );
    }
    const resource = { kind: 'containers', engine: `tcp://127.0.0.1:${address.enginePort}` } as const;
    // The containers of the nodes are registered here, and not by each node: the first one that ends would strike them all out.
    registry.made(resource);
    const enter = (node: string) => {
      knownNode(addresses, node);
      return ['nsenter', `--net=${namespaceFile(node)}`, '--'];
    };
    const run = async (node: string, command: readonly string[], input = '') => {
      const result = await agent.run([...enter(node), ...command], TIMEOUT_MS, Buffer.from(input));
      if (result.code === 0) return result.stdout;
      throw new Error(`${command.join(' ')} on node ${node}: ${messageOf(result.stderr)}`);
    };
    const links = new NodeLinks({ addresses, run, netem: true });
    const end = () => {
      const ended = removeAll();
      this.#removed = ended.catch(() => {});
      return ended;
    };
    const removeAll = async () => {
      await runScript(agent, REMOVE, [], TIMEOUT_MS);
      await removeRunResources(this.#engine, registry.runId);
      registry.gone(resource);
    };
    return Object.assign(links, {
      addresses,
      kitAddresses,
      enter,
      ...withEnd(() => links.close(), end),
    });
  }

  /** Resolves when nothing is being removed any more. */
  async close(): Promise<void> {
    await this.#removed;
  }
}
