import { statusOutput } from './console.js';

/**
 * Time without a line on stderr, in milliseconds, after which the state of the work is printed. It is shorter than 5 s,
 * because a busy machine delays the ticks.
 */
export const MAX_SILENCE_MS = 3000;
const TICK_MS = 500;

/** The stream that shows the state of the work; see `statusOutput`. */
export interface StatusOutput {
  /** True for a terminal, on which the state is one line that is rewritten in place. */
  readonly isTerminal: boolean;
  /** Time since the last line that was printed, in milliseconds. */
  silentMs(): number;
  /** Prints a line that stays. */
  print(line: string): void;
  /** Replaces the state that the terminal shows; an empty text removes it. */
  rewrite(text: string): void;
}

/**
 * Shows what a command is doing: on a terminal as a line that is rewritten twice a second, elsewhere as a line of its own
 * when nothing else was printed for a while.
 */
export class StatusLine {
  readonly #output: StatusOutput;
  #describe: () => string;
  #timer: NodeJS.Timeout | undefined;

  /** @param describe what the command does at first. */
  constructor(describe: () => string, output: StatusOutput = statusOutput) {
    this.#describe = describe;
    this.#output = output;
  }

  /** Replaces the function that describes the work. */
  readonly watch = (describe: () => string): void => {
    this.#describe = describe;
  };

  /** Shows the state if it is time for it. The timer of `during` calls it. */
  tick(): void {
    if (this.#output.isTerminal) this.#output.rewrite(this.#describe());
    else if (this.#output.silentMs() >= MAX_SILENCE_MS) this.#output.print(this.#describe());
  }

  /** Shows the state until the work has ended. */
  async during<T>(work: Promise<T>): Promise<T> {
    this.#timer = setInterval(() => this.tick(), TICK_MS);
    try {
      return await work;
    } finally {
      clearInterval(this.#timer);
      if (this.#output.isTerminal) this.#output.rewrite('');
    }
  }
}
