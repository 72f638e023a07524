/** What was found in one crash state, in the words of the history. */
export interface Found {
  recovered: boolean;
  /** Bits of the messages that it holds, base64. */
  live: string;
  wrong: number;
  detail: string;
  /** The filesystem itself could not be mounted, which says nothing about the target: such a state is not judged. */
  unmountable?: true;
}

/** Which bit each message has, by what it is known by: its id, or the SHA-256 of its bytes. */
export type BitOf = ReadonlyMap<string, number>;

/** @param count number of messages that have a bit. */
export function foundOf(
  bits: BitOf,
  count: number,
  live: Iterable<string>,
  problems: readonly string[],
): Found {
  const bytes = Buffer.alloc(Math.ceil(count / 8));
  let wrong = 0;
  let first = '';
  for (const name of live) {
    const bit = bits.get(name);
    if (bit === undefined) {
      wrong += 1;
      first ||= `a message of digest ${name.slice(0, 16)}`;
    } else bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) | (1 << (bit & 7));
  }
  wrong += problems.length;
  return { recovered: true, live: bytes.toString('base64'), wrong, detail: problems[0] ?? first };
}

/** Nothing is there, because the target did not get up. */
export function notRecovered(detail: string): Found {
  return { recovered: false, live: '', wrong: 0, detail };
}

/** A torn superblock of ext4 is no fault of the target's. */
export function unmountable(detail: string): Found {
  return { ...notRecovered(detail), unmountable: true };
}
