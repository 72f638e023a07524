import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setPriority } from 'node:os';
import type { Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { linux } from '../../common/platform/linux.js';
import type { Host, Writer } from '../host.js';
import { WRITE_SLOT } from './write-slot.js';

/** The program of the queue, which is this file when the program was bundled into one. */
const PROGRAM = fileURLToPath(
  import.meta.url.endsWith('/writer-process.js') ? new URL('../main.js', import.meta.url) : import.meta.url,
);
/** Priority of a writer: it must not take the processor from the transactions. */
const NICE = 10;

/** Starts a process that writes a slot. A failure to start it comes back from `write` or `end`. */
function startWriter(fd: number): Writer {
  let child: ChildProcess;
  try {
    child = spawn(process.execPath, [PROGRAM, WRITE_SLOT], { stdio: ['pipe', fd, 'inherit'] });
  } catch (error) {
    return { write: () => Promise.reject(error), end: async () => false };
  }
  const ended = endOf(child);
  lowerPriority(child.pid);
  const { stdin } = child;
  // The pipe breaks when the process dies. Its exit says so.
  stdin?.on('error', () => undefined);
  return {
    async write(bytes) {
      if (stdin === null || stdin.destroyed || child.exitCode !== null)
        throw new Error('the writer has ended');
      if (!stdin.write(bytes)) await Promise.race([drained(stdin), ended]);
    },
    async end() {
      stdin?.end();
      return (await ended) === 0;
    },
  };
}

async function drained(stream: Writable): Promise<void> {
  await once(stream, 'drain').catch(() => undefined);
}

/** Waits for the end of a process. @returns its exit code; null when it was killed or could not be started. */
function endOf(child: ChildProcess): Promise<number | null> {
  return new Promise((resolve) => {
    child.once('error', () => resolve(null));
    child.once('exit', (code) => resolve(code));
  });
}

function lowerPriority(pid: number | undefined): void {
  try {
    if (pid !== undefined) setPriority(pid, NICE);
  } catch {
    // The process has ended already, or the machine does not allow it: the checkpoint only costs more.
  }
}

/** The machine on which this process runs. */
export const realHost: Host = { kernel: linux, startWriter };

/** A machine on which this process writes the slots itself: for a program that restores one queue after another. */
export const inlineHost: Host = {
  kernel: linux,
  startWriter(fd) {
    let position = 0;
    return {
      async write(bytes) {
        for (let done = 0; done < bytes.length; )
          done += linux.write(fd, bytes, done, bytes.length - done, position + done);
        position += bytes.length;
      },
      end: async () => true,
    };
  },
};
