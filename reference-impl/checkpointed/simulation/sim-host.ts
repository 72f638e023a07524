import type { SimMachine } from '../../common/simulation/machine.js';
import { SimProcess } from '../../common/simulation/sim-process.js';
import type { Host, Writer } from '../host.js';

/** Bytes that a simulated writer process writes in one step. A kill between two steps leaves half a slot. */
const STEP_BYTES = 1024;

/** What a server has sent to its writer process and the process has not read. */
interface Chunk {
  bytes: Buffer;
  read: () => void;
}

/**
 * A simulated writer process. Its input is a pipe of the server, which the end or the death of the server closes. The process
 * outlives its server, as a real one does.
 */
export class SimWriter implements Writer {
  readonly process: SimProcess;
  readonly #server: SimProcess;
  readonly #fd: number;
  readonly #input: Chunk[] = [];
  #position = 0;
  #isInputOver = false;
  #hasEnded = false;
  #wasKilled = false;
  readonly #onEnd: (() => void)[] = [];

  constructor(machine: SimMachine, server: SimProcess, fd: number, name: string) {
    this.process = new SimProcess(machine, name);
    this.#server = server;
    this.#fd = this.process.kernel.inherit(server.kernel, fd);
  }

  write(bytes: Buffer): Promise<void> {
    this.#server.lifetime.step();
    return new Promise((resolve, reject) => {
      const read = () => this.#server.kernel.postIo(resolve);
      if (this.#hasEnded) {
        this.#server.kernel.postIo(() => reject(new Error('EPIPE: the writer process has ended')));
        return;
      }
      // Copy the bytes: the pipe holds them, whatever the server does with its memory.
      this.#input.push({ bytes: Buffer.from(bytes), read });
      this.#postRead();
    });
  }

  end(): Promise<boolean> {
    this.#server.lifetime.step();
    this.#isInputOver = true;
    if (!this.#hasEnded && this.#input.length === 0) this.#postRead();
    return new Promise((resolve) => {
      const report = () => this.#server.kernel.postIo(() => resolve(!this.#wasKilled));
      if (this.#hasEnded) report();
      else this.#onEnd.push(report);
    });
  }

  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  #postRead(): void {
    this.process.kernel.postIo(() => this.#readInput());
  }

  /** Reads a chunk and writes it to the slot, or ends when the input is over. */
  #readInput(): void {
    if (this.#hasEnded) return;
    const { kernel } = this.process;
    const chunk = this.#input[0];
    if (chunk) {
      for (let at = 0; at < chunk.bytes.length; at += STEP_BYTES) {
        const length = Math.min(STEP_BYTES, chunk.bytes.length - at);
        kernel.write(this.#fd, chunk.bytes, at, length, this.#position);
        this.#position += length;
      }
      this.#input.shift();
      chunk.read();
    }
    if (this.#input.length > 0) return;
    if (this.#isInputOver || !this.#server.lifetime.alive) this.#end();
  }

  /** Records the death of the server: the input is over. */
  serverDied(): void {
    if (!this.#hasEnded && this.#input.length === 0) this.#postRead();
  }

  /** Records that the process was killed. */
  killed(): void {
    this.#wasKilled = true;
    for (const { read } of this.#input.splice(0)) read();
    this.#end();
  }

  #end(): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.process.terminate();
    for (const report of this.#onEnd) report();
  }
}

/** The host of a simulated server: its writer processes are simulated processes too. */
export class SimHost implements Host {
  readonly kernel: SimProcess['kernel'];
  readonly #machine: SimMachine;
  readonly #server: SimProcess;
  /** The writer processes that have not ended, oldest first. */
  readonly writers: SimWriter[] = [];
  #startCount = 0;

  constructor(machine: SimMachine, server: SimProcess) {
    this.#machine = machine;
    this.#server = server;
    this.kernel = server.kernel;
  }

  startWriter(fd: number): Writer {
    this.#server.lifetime.step();
    this.#startCount += 1;
    const name = `writer ${this.#startCount} of ${this.#server.name}`;
    const writer = new SimWriter(this.#machine, this.#server, fd, name);
    this.writers.push(writer);
    return writer;
  }
}
