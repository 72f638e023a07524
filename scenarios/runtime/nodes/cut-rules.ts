/** A TCP connection as one of its ends sees the packets that arrive. */
export interface Arriving {
  fromAddress: string;
  fromPort: number;
  toPort: number;
}

/** What a node does not receive any more. */
export interface NodeCuts {
  /** Addresses of nodes from which nothing arrives. */
  addresses: readonly string[];
  /** Connections of which nothing arrives. */
  connections: readonly Arriving[];
}

const TABLE = 'ip plugpull';
/** Arguments of nft that print what the rules of a node have dropped. */
export const LIST_COUNTER = ['list', 'counter', ...TABLE.split(' '), 'swallowed'];

/**
 * Makes the input of `nft -f` that replaces the rules of a node in one step, with a counter that starts at 0. The rules act
 * before the connection tracking, so that no other table of the node sees the packets.
 */
export function rulesFor({ addresses, connections }: NodeCuts): string {
  // A table must exist before it can be deleted.
  const reset = `table ${TABLE} {}\ndelete table ${TABLE}\n`;
  const matches = [
    setMatch('ip saddr', addresses),
    setMatch(
      'ip saddr . tcp sport . tcp dport',
      connections.map(({ fromAddress, fromPort, toPort }) => `${fromAddress} . ${fromPort} . ${toPort}`),
    ),
  ].flat();
  if (matches.length === 0) return reset;
  const rules = matches.map((match) => `    ${match} counter name swallowed drop\n`).join('');
  return `${reset}table ${TABLE} {
  counter swallowed {}
  chain arriving {
    type filter hook prerouting priority -300; policy accept;
${rules}  }
}
`;
}

function setMatch(key: string, elements: readonly string[]): string[] {
  const unique = [...new Set(elements)];
  return unique.length === 0 ? [] : [`${key} { ${unique.join(', ')} }`];
}

/** Returns the number of packets in the output of `LIST_COUNTER`. */
export function packetsIn(output: string): number {
  const packets = /packets (\d+)/.exec(output)?.[1];
  if (packets === undefined) throw new Error(`no counter in the output of nft: ${output}`);
  return Number(packets);
}

/** States of /proc/net/tcp in which a socket has no connection that could go on: TIME_WAIT, CLOSE, LISTEN. */
const WITHOUT_CONNECTION = new Set(['06', '07', '0A']);

/** One connection in a table of sockets. */
export interface Connection {
  localPort: number;
  peerAddress: string;
  peerPort: number;
}

/**
 * Lists the IPv4 connections in the text of /proc/net/tcp and /proc/net/tcp6. A socket that listens on `::` has its connections
 * in the second one, with IPv4 addresses in IPv6 form.
 */
export function connectionsIn(tables: string): Connection[] {
  return tables.split('\n').flatMap((line) => {
    const [, local = '', remote = '', state = ''] = line.trim().split(/\s+/);
    const [, localPort] = local.split(':');
    const [peer = '', peerPort] = remote.split(':');
    const peerAddress = parseHexAddress(peer);
    if (localPort === undefined || peerPort === undefined || peerAddress === undefined) return [];
    if (WITHOUT_CONNECTION.has(state)) return [];
    return [
      { localPort: Number.parseInt(localPort, 16), peerAddress, peerPort: Number.parseInt(peerPort, 16) },
    ];
  });
}

/** IPv6 prefix of IPv4 addresses, `::ffff:0:0/96`, as the kernel prints it on a little-endian machine. */
const MAPPED = '0000000000000000FFFF0000';

/** Reads an address of /proc/net/tcp: 32-bit words in the byte order of the machine. All that run the kit are little-endian. */
function parseHexAddress(hex: string): string | undefined {
  const word = hex.length === 32 && hex.startsWith(MAPPED) ? hex.slice(MAPPED.length) : hex;
  if (!/^[0-9A-F]{8}$/.test(word)) return undefined;
  return [6, 4, 2, 0].map((at) => Number.parseInt(word.slice(at, at + 2), 16)).join('.');
}
