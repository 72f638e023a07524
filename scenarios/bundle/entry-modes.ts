/** The part of an entry of an archive that decides what unpacking it makes. */
export interface ArchiveEntry {
  type: string;
  /** Permission bits; undefined when the archive gives none. */
  mode?: number | undefined;
}

/** Types of entries of a bundle: the kit packs only regular files. */
const FILE_TYPES: ReadonlySet<string> = new Set(['File', 'OldFile', 'ContiguousFile']);
const DIRECTORY_TYPE = 'Directory';

/**
 * Limits what unpacking an entry of a bundle makes: no setuid, setgid and sticky bits, and no right for others
 * to write. The user may always read and remove it.
 * @returns what is wrong with an entry of another type: links and devices; undefined when it may be unpacked.
 */
export function limitEntry(path: string, entry: ArchiveEntry): string | undefined {
  const isDirectory = entry.type === DIRECTORY_TYPE;
  if (!isDirectory && !FILE_TYPES.has(entry.type))
    return `${path} is an entry of the type ${entry.type}, expected files and directories`;
  entry.mode = isDirectory ? 0o700 : ((entry.mode ?? 0) & 0o755) | 0o600;
  return undefined;
}
