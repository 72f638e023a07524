/**
 * Has something undone when the program ends all at once, by a second Ctrl-C or an error that nobody caught; the latest
 * first. What cannot be undone in that moment is written down as left, for `clean`: it must neither keep the rest from
 * being undone nor change the exit code.
 * @returns what takes this back.
 */
export function atExit(undo: () => void): () => void {
  const guarded = () => {
    try {
      undo();
    } catch {
      // Nobody is left who could be told.
    }
  };
  process.prependOnceListener('exit', guarded);
  return () => void process.removeListener('exit', guarded);
}
