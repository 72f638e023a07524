/** What strace does to the n-th of some system calls: a signal or a pause (in microseconds) before it, or an error instead. */
export interface Tampering {
  calls: readonly string[];
  what: 'signal=KILL' | `error=${string}` | `delay_enter=${number}`;
  /** Counted for each thread: `7` the seventh, `7..9` three, `7+` all from the seventh on. */
  when: string;
}

export interface StraceOptions {
  /** Where the log goes; an old one is overwritten. */
  log: string;
  /** Calls in the log, those that are tampered with among them. */
  calls: readonly string[];
  tampering?: Tampering;
  /** Only calls on these files are seen and counted (by descriptor: msync has none). */
  paths?: readonly string[];
  /** File descriptors with their paths. */
  showPaths?: boolean;
}

/**
 * The words before a command that run it under strace, with all its threads and children.
 *
 * Without --seccomp-bpf where a signal is injected: strace 6.1 never delivers that; errors it does.
 */
export function straceCommand({
  log,
  calls,
  tampering,
  paths = [],
  showPaths: named = false,
}: StraceOptions): string[] {
  const injectsSignal = tampering?.what.startsWith('signal') === true;
  return [
    'strace',
    '-f',
    ...(injectsSignal ? [] : ['--seccomp-bpf']),
    '-qq',
    '-s',
    '0',
    ...(named ? ['-y'] : []),
    '-o',
    log,
    ...paths.flatMap((path) => ['-P', path]),
    '-e',
    `trace=${optionalCalls(calls)}`,
    ...(tampering === undefined
      ? []
      : ['-e', `inject=${optionalCalls(tampering.calls)}:${tampering.what}:when=${tampering.when}`]),
  ];
}

/** `?` makes strace ignore those that this machine does not have. */
function optionalCalls(calls: readonly string[]): string {
  return calls.map((call) => `?${call}`).join(',');
}

/** Names of the calls that failed because strace was told so, one for each time, in order. */
export function failedCalls(log: string): string[] {
  return log
    .split('\n')
    .filter((line) => line.endsWith('(INJECTED)'))
    .map((line) => /^(?:\d+ +)?(?:<\.\.\. )?(\w+)/.exec(line)?.[1] ?? '');
}
