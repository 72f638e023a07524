/**
 * The first use of the content that a file had at the start of a trace. `used`: a process may have read it, or may
 * read it later under another name. Otherwise the first use was a truncation: it threw away, unread, all except the
 * first `keptBytes` bytes.
 */
export type StartUse = 'used' | { keptBytes: number; doneOffset: number };

/**
 * What became of the files that were there when a trace began, by their path. A file whose content is thrown away
 * before any process reads it is one that the program makes anew at each start.
 */
export class StartContent {
  readonly #uses = new Map<string, StartUse>();
  /** Paths that files or folders had at the start and no longer have. */
  readonly #gone = new Set<string>();

  get uses(): ReadonlyMap<string, StartUse> {
    return this.#uses;
  }

  /** Notes a use of the file that had this path at the start. Only the first one counts. */
  use(path: string, use: StartUse): void {
    if (!this.#uses.has(path)) this.#uses.set(path, use);
  }

  /** Notes that the file or folder at a path was deleted, replaced, or got another name. */
  leave(path: string): void {
    if (!this.isGone(path)) this.use(path, 'used');
    this.#gone.add(path);
  }

  /** Reports whether the file that had this path at the start has it no longer. */
  isGone(path: string): boolean {
    for (let end = path.length; end > 0; end = path.lastIndexOf('/', end - 1)) {
      if (this.#gone.has(path.slice(0, end))) return true;
    }
    return false;
  }
}
