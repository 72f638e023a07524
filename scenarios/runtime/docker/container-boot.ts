import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { closeSync, constants, mkdirSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { MountSettings } from 'dockerode';
import { messageOf } from '../../../conformance/errors.js';
import type { Availability } from '../../../faults/fault.js';
import { removeTree } from '../../../faults/files/remove-tree.js';
import { findProgram } from '../../../faults/programs.js';
import { until } from '../../../faults/waiting.js';
import { BOOT_ID_FILE, writeBootId } from '../boot/boot-view.js';
import { bindMount } from './container-options.js';

const run = promisify(execFile);

/** Path in a container of the program that waits until the container's boot id is in place. */
const LATCH_PROGRAM = '/.plugpull/busybox';
/**
 * Script that waits for a line from a named pipe, and then becomes the command. It looks the program up itself:
 * busybox would prefer its own version of many programs to that of the image.
 */
const LATCH_SCRIPT = `
read -r go < "$0"
program=$1; shift
case $program in
  */*) ;;
  *)
    found=
    IFS=:
    for dir in $PATH; do
      if [ -z "$found" ] && [ -x "$dir/$program" ]; then found=$dir/$program; fi
    done
    unset IFS
    if [ -z "$found" ]; then echo "plugpull: $program: no such program in the image" >&2; exit 127; fi
    program=$found ;;
esac
exec "$program" "$@"`;

const MOUNT_TIMEOUT_MS = 10_000;
const LATCH_TIMEOUT_MS = 10_000;
const LATCH_POLL_MS = 2;

/**
 * The boot id that the containers of one deployment see. The container engine refuses mounts below /proc, so
 * the kit makes the mount itself, in the mount namespace of the container. The container's first process waits
 * for it at a latch, a named pipe in the directory for scratch files.
 */
export class ContainerBoot {
  readonly #dir: string;
  readonly #busybox: string | undefined;
  #id = randomUUID();
  #latches = 0;
  #problem: string | undefined;
  readonly #latchOf = new Map<string, string>();

  /**
   * @param workingDir directory that every container of the deployment sees under the same path.
   * @param busybox path of a static busybox on this machine; undefined when there is none.
   */
  constructor(workingDir: string, busybox: string | undefined) {
    this.#dir = join(workingDir, '.boot');
    this.#busybox = busybox;
    const availability = containerBootAvailability();
    if (!availability.available) this.#problem = availability.why;
    else if (busybox === undefined) this.#problem = "the kit's image has no busybox, which the boot id needs";
  }

  /** The reason why containers see the boot id of this machine; undefined when they see their own. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /** Begins another boot: containers that start from now on see another id. */
  reboot(): void {
    this.#id = randomUUID();
  }

  /** Returns the command and mounts with which a container waits at its latch, and the path of the latch. */
  async makeLatch(
    command: readonly string[],
  ): Promise<{ command: readonly string[]; mounts: MountSettings[]; path: string | undefined }> {
    if (this.#problem !== undefined || this.#busybox === undefined)
      return { command, mounts: [], path: undefined };
    mkdirSync(this.#dir, { recursive: true });
    const path = join(this.#dir, `latch-${++this.#latches}`);
    await run('mkfifo', ['-m', '644', path]);
    return {
      command: [LATCH_PROGRAM, 'sh', '-c', LATCH_SCRIPT, path, ...command],
      mounts: [bindMount(this.#busybox, { readOnly: true, target: LATCH_PROGRAM })],
      path,
    };
  }

  /** Notes at which latch a container waits. */
  assign(containerId: string, latch: string | undefined): void {
    if (latch !== undefined) this.#latchOf.set(containerId, latch);
  }

  /**
   * Puts the boot id into a container that was just started, and opens its latch.
   * @param pid process id of the container's first process; 0 when it has ended already.
   */
  async enter(containerId: string, pid: number): Promise<void> {
    const latch = this.#latchOf.get(containerId);
    if (latch === undefined || pid === 0) return;
    try {
      await this.#mountBootId(pid);
    } catch (error) {
      // Let the target run nevertheless: what is missing is named in the result of each machine crash.
      this.#problem ??= `the boot id cannot be mounted in a container: ${messageOf(error)}`;
    }
    await openLatch(latch);
  }

  /** Removes the files. May be called twice. */
  remove(): void {
    removeTree(this.#dir);
  }

  async #mountBootId(pid: number): Promise<void> {
    const file = join(this.#dir, this.#id);
    writeBootId(file, this.#id);
    // The command runs in the container's mount namespace with the files of this machine: the image need not
    // have these programs. Only mounts of the container can be bound there, so the source is its view of the file.
    const root = `/proc/${pid}/root`;
    const enter = [`--mount=/proc/${pid}/ns/mnt`, '--root=/', '--wd=/', '--'];
    const mount = ['mount', '--no-canonicalize', '--bind', `${root}${file}`, `${root}${BOOT_ID_FILE}`];
    await run('nsenter', [...enter, ...mount], { timeout: MOUNT_TIMEOUT_MS });
  }
}

/** Reports whether the kit can give containers a boot id of their own. */
export function containerBootAvailability(): Availability {
  const what = 'a boot id of its own for a container';
  if (process.getuid?.() !== 0)
    return { available: false, why: `${what} needs root`, remedy: 'run as root (sudo)' };
  const missing = ['nsenter', 'mkfifo'].filter((program) => findProgram(program) === undefined);
  if (missing.length === 0) return { available: true };
  const remedy = 'apt-get install util-linux coreutils';
  return { available: false, why: `${what} needs ${missing.join(' and ')}`, remedy };
}

/** Lets a container pass its latch. It does not wait for a container that has ended. */
async function openLatch(path: string): Promise<void> {
  await until(
    () => {
      let pipe: number;
      try {
        // Without a reader, which a blocking open would wait for without end, this fails with ENXIO.
        pipe = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK);
      } catch (error) {
        return !(error instanceof Error && 'code' in error && error.code === 'ENXIO');
      }
      try {
        writeSync(pipe, '\n');
      } finally {
        closeSync(pipe);
      }
      return true;
    },
    LATCH_TIMEOUT_MS,
    undefined,
    LATCH_POLL_MS,
  );
}
