/**
 * Aborts when the process is told to stop: by SIGTERM or SIGINT, or, under a supervisor, by SIGTERM or the supervisor's
 * death. A Ctrl-C reaches all processes of a terminal at once; the supervisor then stops its services in order.
 */
export function stopSignal(): AbortSignal {
  const stop = new AbortController();
  const isSupervised = process.connected === true;
  process.on('SIGTERM', () => stop.abort());
  process.on('SIGINT', () => {
    if (!isSupervised) stop.abort();
  });
  if (isSupervised) process.on('disconnect', () => stop.abort());
  return stop.signal;
}

/** Resolves when the signal is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
}
