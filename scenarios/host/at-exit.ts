/**
 * Registers a clean-up that runs when the program ends abruptly: by a second Ctrl-C or by an uncaught error.
 * The clean-up that was registered last runs first. An error of `undo` is ignored: it must neither keep the
 * other clean-ups from running nor change the exit code. What is left then is still in the registry, and
 * `clean` removes it.
 * @returns a function that cancels the registration.
 */
export function atExit(undo: () => void): () => void {
  const guarded = () => {
    try {
      undo();
    } catch {
      // The program is ending: no caller is left to receive the error.
    }
  };
  process.prependOnceListener('exit', guarded);
  return () => void process.removeListener('exit', guarded);
}
