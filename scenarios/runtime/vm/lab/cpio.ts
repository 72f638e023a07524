const MAGIC = '070701';
const REGULAR = 0o100755;
const DIRECTORY = 0o040755;

/** One entry of an archive; a directory has no data. */
export interface CpioEntry {
  path: string;
  data?: Buffer;
}

/** An archive in the `newc` format, which the kernel unpacks as its first root; directories go before what is in them. */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.flatMap(({ path, data }, index) => entry(path, data, index + 1));
  return Buffer.concat([...parts, ...entry('TRAILER!!!', Buffer.alloc(0), 0)]);
}

function entry(path: string, data: Buffer | undefined, inode: number): Buffer[] {
  const mode = data === undefined ? DIRECTORY : REGULAR;
  const sizeBytes = data?.length ?? 0;
  const nameBytes = Buffer.byteLength(path) + 1;
  // inode, mode, uid, gid, links, mtime, size, device and its special twin (major, minor each), name's length, check
  const numbers = [inode, mode, 0, 0, 1, 0, sizeBytes, 0, 0, 0, 0, nameBytes, 0];
  const head = MAGIC + numbers.map((number) => number.toString(16).padStart(8, '0')).join('');
  return [padded(Buffer.from(`${head}${path}\0`)), padded(data ?? Buffer.alloc(0))];
}

/** Every head and every body ends on a multiple of four. */
function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}
