import { randomInt } from 'node:crypto';

/** First address of 198.18.0.0/15, which RFC 2544 reserves for tests of networks: no host on the internet has one of them. */
const FIRST = ((198 << 24) | (18 << 16)) >>> 0;
/** Bits of the network part of a subnet: 30 addresses, for the kit and up to 29 nodes. */
export const PREFIX_BITS = 27;
const SUBNET_SIZE = 2 ** (32 - PREFIX_BITS);
/** Number of subnets of this size in 198.18.0.0/15. */
export const SUBNET_COUNT = 2 ** 17 / SUBNET_SIZE;

/** Addresses of one network. */
export interface Subnet {
  /** Number of the subnet, from 0 to `SUBNET_COUNT` - 1. */
  index: number;
  /** IPv4 address of the kit. */
  kit: string;
  /** IPv4 address of the node with this number, from 0. */
  node(index: number): string;
}

/** @param index number of the subnet, from 0. */
export function subnetOf(index: number): Subnet {
  const base = FIRST + index * SUBNET_SIZE;
  return { index, kit: formatAddress(base + 1), node: (node) => formatAddress(base + 2 + node) };
}

/** Returns the number of the subnet that an IPv4 address belongs to; undefined when it belongs to none. */
export function subnetIndexOf(address: string): number | undefined {
  const index = Math.floor((parseAddress(address) - FIRST) / SUBNET_SIZE);
  return index >= 0 && index < SUBNET_COUNT ? index : undefined;
}

/**
 * Yields subnets that no route of this machine overlaps, each once, from a random one on.
 * @param routes output of `ip -4 -o route show table all`.
 */
export function* freeSubnets(routes: string, first = randomInt(SUBNET_COUNT)): Generator<Subnet> {
  const taken = routes.split('\n').flatMap((line) => routeRange(line) ?? []);
  for (let step = 0; step < SUBNET_COUNT; step++) {
    const index = (first + step) % SUBNET_COUNT;
    const start = FIRST + index * SUBNET_SIZE;
    if (!taken.some((range) => range.start < start + SUBNET_SIZE && range.end > start)) yield subnetOf(index);
  }
}

/** Returns the addresses of a route, from `start` to before `end`; undefined for a default route. */
function routeRange(line: string): { start: number; end: number } | undefined {
  const [, address = '', bits = '32'] = /(?:^|\s)(\d+\.\d+\.\d+\.\d+)(?:\/(\d+))?\s/.exec(`${line} `) ?? [];
  if (address === '' || /^\s*default\b/.test(line) || bits === '0') return undefined;
  const size = 2 ** (32 - Number(bits));
  const start = Math.floor(parseAddress(address) / size) * size;
  return { start, end: start + size };
}

const parseAddress = (text: string): number =>
  text.split('.').reduce((number, part) => number * 256 + Number(part), 0);

const formatAddress = (address: number): string =>
  [24, 16, 8, 0].map((shift) => (address >>> shift) & 255).join('.');
