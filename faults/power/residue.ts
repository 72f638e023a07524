/** Something that outlives a killed kit and has to be removed again; a loop device is known by the file behind it. */
export type PowerResource =
  | { kind: 'directory'; path: string }
  | { kind: 'mount'; path: string }
  | { kind: 'loop'; path: string }
  /** A device of the device mapper, with its path below /dev/mapper. */
  | { kind: 'mapping'; path: string };

/** Where a resource is written down before it is made, and crossed out when it is gone. */
export interface Residue {
  made(resource: PowerResource): void;
  gone(resource: PowerResource): void;
}
