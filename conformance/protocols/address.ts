/** Where a target listens. */
export interface Address {
  /** IPv4 address. */
  host: string;
  port: number;
  /** Node that listens there; undefined for a target without `nodes`. */
  node?: string | undefined;
}

/** Returns the address of a port of this machine. */
export function localAddress(port: number): Address {
  return { host: '127.0.0.1', port };
}

/** Describes an address for people: `port 4222`, or `node b (10.0.0.2), port 4222`. */
export function describeAddress({ host, port, node }: Address): string {
  return node === undefined ? `port ${port}` : `node ${node} (${host}), port ${port}`;
}
