import { Command, CommanderError } from 'commander';
import { commandOfProgram, printErrorLine, printFailure } from './output.js';

/** Makes the program of an implementation, without commands. It throws instead of exiting, and prints errors on one line. */
export function newProgram(description: string): Command {
  return new Command(commandOfProgram())
    .description(description)
    .exitOverride()
    .configureOutput({
      outputError: (text) =>
        printErrorLine(
          text
            .trim()
            .replace(/^error: /, '')
            .replace(/\s+/g, ' '),
        ),
    });
}

/**
 * Runs one command of a program.
 * @param create makes the program; a command passes its exit code to `setExitCode`.
 * @returns the exit code of the command; 2 for wrong usage, and that of `printFailure` for a failure.
 */
export async function runCommand(
  argv: readonly string[],
  create: (setExitCode: (code: number) => void) => Command,
): Promise<number> {
  let exitCode = 0;
  const program = create((code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync(argv, { from: 'user' });
    return exitCode;
  } catch (failure) {
    if (failure instanceof CommanderError) return failure.exitCode === 0 ? 0 : 2;
    return printFailure(failure);
  }
}
