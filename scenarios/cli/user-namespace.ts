import koffi from 'koffi';
import type { Target } from '../../conformance/target-file/definition.js';
import { nodeNetworkMethod, USER_NAMESPACE } from '../runtime/nodes/availability.js';

/** Environment variable of a kit that was started again. It prevents an endless loop where the namespace is of no use. */
const STARTED_AGAIN = 'PLUGPULL_STARTED_AGAIN';
/** Command of fcntl(2) that sets the flags of a descriptor. Flag 1 closes it at the start of another program. */
const F_SETFD = 2;
/** Starts loopback, on which the kit listens, and then the program. */
const WITH_LOOPBACK = ['sh', '-c', 'ip link set dev lo up && exec "$@"', 'plugpull'];

/**
 * Starts the kit again in a user namespace, if only there it can make the network that a target with nodes needs. The new
 * program takes the place of this one: process id, terminal, output and signals stay the same. So this must be called before the
 * command has made or printed anything.
 *
 * Returns where no user namespace is needed, or none can be made. The runtime gives the reason then.
 */
export function enterUserNamespace({ nodes }: Pick<Target, 'nodes'>, runtime: string): void {
  const isSecondStart = process.env[STARTED_AGAIN] !== undefined;
  // Programs of the target must not have it.
  delete process.env[STARTED_AGAIN];
  if (isSecondStart || nodes === undefined || runtime !== 'process') return;
  if (nodeNetworkMethod().how !== 'user-namespace') return;
  const libc = koffi.load(null);
  const fcntl = libc.func('int fcntl(int fd, int command, ...)');
  const execvp = libc.func('int execvp(const char *file, const char **argv)');
  const command = [
    ...USER_NAMESPACE,
    ...WITH_LOOPBACK,
    process.execPath,
    ...process.execArgv,
    ...process.argv.slice(1),
  ];
  process.env[STARTED_AGAIN] = '1';
  // Node closes these in every program that takes its place.
  for (const stream of [0, 1, 2]) fcntl(stream, F_SETFD, 'int', 0);
  execvp(command[0], [...command, null]);
  // It only returns when it has failed.
  delete process.env[STARTED_AGAIN];
}
