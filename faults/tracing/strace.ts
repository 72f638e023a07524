import { descriptorOf, parseStraceLog } from './strace-log.js';

/**
 * A change that strace makes to system calls: a signal or a delay (in microseconds) before a call, or an
 * error in its place.
 */
export interface Tampering {
  /** Names of the system calls. */
  calls: readonly string[];
  what: 'signal=KILL' | `error=${string}` | `delay_enter=${number}`;
  /**
   * The calls that are changed, counted for each thread: `7` the seventh, `7..9` three, `7+` all from the
   * seventh on.
   */
  when: string;
}

/** The options of `straceCommand`. */
export interface StraceOptions {
  /** Path of the log; an existing file is overwritten. */
  log: string;
  /** Names of the calls that are logged; they include the calls of `tampering`. */
  calls: readonly string[];
  tampering?: Tampering;
  /**
   * Paths of files. If they are given, only calls on these files are logged and counted. msync is then left
   * out, because it has no descriptor.
   */
  paths?: readonly string[];
  /** True: the log shows the path of each file descriptor. `readTrace` needs the paths. */
  showPaths?: boolean;
  /**
   * True: `io_uring_setup` fails with ENOSYS, as on a kernel without io_uring. A trace does not show what a program
   * writes through a ring, and most programs fall back to plain system calls, which it shows. libuv makes a ring in
   * every process from Node 22 on, without writing through it. A program that insists on io_uring does not start.
   */
  withoutIoUring?: boolean;
}

const IO_URING_SETUP = 'io_uring_setup';

/**
 * Returns the arguments that, put before a command, run it under strace with all its threads and children.
 *
 * It leaves out --seccomp-bpf when a signal is injected: with that option strace 6.1 never delivers the
 * signal. It does deliver errors.
 */
export function straceCommand({
  log,
  calls,
  tampering,
  paths = [],
  showPaths = false,
  withoutIoUring = false,
}: StraceOptions): string[] {
  const injectsSignal = tampering?.what.startsWith('signal') === true;
  return [
    'strace',
    '-f',
    ...(injectsSignal ? [] : ['--seccomp-bpf']),
    '-qq',
    '-s',
    '0',
    ...(showPaths ? ['-y'] : []),
    '-o',
    log,
    ...paths.flatMap((path) => ['-P', path]),
    '-e',
    `trace=${optionalCalls(calls)}`,
    ...(tampering === undefined
      ? []
      : ['-e', `inject=${optionalCalls(tampering.calls)}:${tampering.what}:when=${tampering.when}`]),
    ...(withoutIoUring ? ['-e', `inject=${optionalCalls([IO_URING_SETUP])}:error=ENOSYS`] : []),
  ];
}

/** Puts `?` before each call, so that strace ignores calls that do not exist on this machine. */
function optionalCalls(calls: readonly string[]): string {
  return calls.map((call) => `?${call}`).join(',');
}

/** One call into which strace injected an error. */
export interface InjectedFailure {
  call: string;
  /** Path of the file; null when the log does not show it, as for msync. */
  path: string | null;
  /** Name of the error, such as EIO. */
  error: string;
}

/**
 * Returns the calls into which strace injected an error, in order, with their files. The log must show paths. Failures
 * that `withoutIoUring` causes are left out.
 */
export function injectedFailures(log: string): InjectedFailure[] {
  return parseStraceLog(log).flatMap(({ name, args, result }) => {
    const error = /^-1 (\w+) .*\(INJECTED\)$/.exec(result ?? '')?.[1];
    if (error === undefined || name === IO_URING_SETUP) return [];
    return [{ call: name, path: descriptorOf(args[0])?.path ?? null, error }];
  });
}

/** Reports whether `withoutIoUring` has refused a ring to the program of this log. */
export function hasRefusedIoUring(log: string): boolean {
  return new RegExp(`${IO_URING_SETUP}\\b.* ENOSYS `).test(log);
}
