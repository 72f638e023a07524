import { closeSync, existsSync } from 'node:fs';
import { Socket } from 'node:net';
import { setPriority } from 'node:os';
import { fileURLToPath } from 'node:url';
import { linux } from '../../common/platform/linux.js';
import { hasEndedWell, makePipe, spawnSmall } from '../../common/platform/native.js';
import { writeWhole } from '../files.js';
import type { Host, Writer } from '../host.js';
import { WRITE_SLOT } from './write-slot.js';

/** A program that copies its standard input to its standard output. */
interface CopyProgram {
  path: string;
  args: readonly string[];
}

/** Path of the program of this queue. It is this file when all files were bundled into one. */
const MAIN = fileURLToPath(
  import.meta.url.endsWith('/writer-process.js') ? new URL('../main.js', import.meta.url) : import.meta.url,
);
/** The program of this queue as a writer, for a machine without `cat`. */
export const NODE_WRITER: CopyProgram = {
  path: process.execPath,
  args: [MAIN, WRITE_SLOT],
};
const CAT = ['/bin/cat', '/usr/bin/cat'].find(existsSync);
/** The program of a writer, whose standard output is the slot: `cat` starts a hundred times as fast as Node. */
const WRITER: CopyProgram = CAT === undefined ? NODE_WRITER : { path: CAT, args: [] };
/** Priority of a writer: it must not take the processor from the transactions. */
const NICE = 10;
/** Bounds of the time between two checks whether a writer has ended, in milliseconds. Each time is twice the previous one. */
const LOOK_MS = { min: 1, max: 32 } as const;
const STDERR_FD = 2;

/** A running writer: its process and the pipe to it. */
interface Running {
  pid: number;
  input: Socket;
}

/** The last turn of the event loop that a writer has reserved. */
let lastTurn: Promise<void> = Promise.resolve();

/**
 * Waits for a turn of the event loop that no other writer uses. To start a process or to encode a piece takes a part of a
 * millisecond. If several writers did this in one turn, they would delay the transactions.
 */
function nextTurn(): Promise<void> {
  lastTurn = lastTurn.then(() => new Promise((resolve) => void setImmediate(resolve)));
  return lastTurn;
}

/** Starts a process that writes a slot. If it cannot be started, `write` and `end` reject. */
export function startWriter(fd: number, program = WRITER): Writer {
  const running = nextTurn().then(() => run(fd, program));
  // `write` and `end` report the failure. Without this line Node would end the server for an unhandled rejection.
  running.catch(() => undefined);
  return {
    async write(bytes) {
      const { pid, input } = await running;
      if (input.destroyed) {
        // Ask for the exit status: without this call, the ended process would stay in the process table.
        await endOf(pid);
        throw new Error('the writer has ended');
      }
      await new Promise<void>((resolve) => input.write(bytes, () => resolve()));
      await nextTurn();
    },
    async end() {
      const { pid, input } = await running;
      input.end();
      // A pipe that broke ends the input too: the process ends well then, with a part of it.
      return (await endOf(pid)) && input.errored === null;
    },
  };
}

/** Starts the process and opens the pipe to it. @throws when no more processes or files are available. */
function run(fd: number, { path, args }: CopyProgram): Running {
  const pipe = makePipe();
  if (pipe === undefined) throw new Error('no pipe to a writer can be made');
  const { readEnd, writeEnd } = pipe;
  const pid = spawnSmall(path, args, [readEnd, fd, STDERR_FD]);
  closeSync(readEnd);
  if (pid === 0) {
    closeSync(writeEnd);
    throw new Error('no writer can be started');
  }
  lowerPriority(pid);
  const input = new Socket({ fd: writeEnd, readable: false, writable: true });
  // The pipe breaks when the process dies. The exit status reports this failure.
  input.on('error', () => undefined);
  return { pid, input };
}

/** Waits for the end of a process. @returns whether it has written everything */
async function endOf(pid: number): Promise<boolean> {
  for (let waitMs: number = LOOK_MS.min; ; waitMs = Math.min(2 * waitMs, LOOK_MS.max)) {
    const isWritten = hasEndedWell(pid);
    if (isWritten !== undefined) return isWritten;
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
}

function lowerPriority(pid: number): void {
  try {
    setPriority(pid, NICE);
  } catch {
    // The process has already ended, or this is not permitted. The writer then only takes more of the processor.
  }
}

/** The machine on which this process runs. */
export const realHost: Host = { kernel: linux, startWriter: (fd) => startWriter(fd) };

/** A machine on which this process writes the slots itself. A program that restores many queues needs no processes for them. */
export const inlineHost: Host = {
  kernel: linux,
  startWriter(fd) {
    let position = 0;
    return {
      async write(bytes) {
        writeWhole(linux, fd, bytes, position);
        position += bytes.length;
      },
      end: async () => true,
    };
  },
};
