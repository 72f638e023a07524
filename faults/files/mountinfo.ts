import { readFileSync } from 'node:fs';

/** One mount, as /proc/self/mountinfo shows it. */
export interface Mount {
  /** Number of the mount. The kernel uses it again after an unmount. */
  id: number;
  /** `major:minor` of the filesystem. Two mounts of one filesystem have the same. */
  device: string;
  /** Directory of the filesystem that is mounted; `/` unless it is a bind mount of a part. */
  root: string;
  point: string;
  type: string;
  source: string;
}

/** Lists the mounts of this process's namespace in the order in which they were made. */
export function mounts(): Mount[] {
  return parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'));
}

/** Parses a mountinfo table; see proc(5). */
export function parseMountinfo(text: string): Mount[] {
  return text.split('\n').flatMap((line) => {
    const [before = '', after = ''] = line.split(' - ');
    const [id, , device = '', root = '', point] = before.split(' ');
    const [type = '', source = ''] = after.split(' ');
    if (point === undefined) return [];
    return [{ id: Number(id), device, root: decodePath(root), point: decodePath(point), type, source }];
  });
}

/** Returns the mounts at a path and below it. */
export function mountsBelow(path: string, all: readonly Mount[] = mounts()): Mount[] {
  const prefix = path.endsWith('/') ? path : `${path}/`;
  return all.filter(({ point }) => point === path || point.startsWith(prefix));
}

/** Decodes a path of the table: the kernel writes blanks and backslashes as octal numbers. */
function decodePath(path: string): string {
  return path.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}
