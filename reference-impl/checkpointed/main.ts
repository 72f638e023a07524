#!/usr/bin/env node
import { WRITE_SLOT, writeSlot } from './checkpoint/write-slot.js';

// On a machine without cat. The process loads nothing else: each checkpoint starts several.
if (process.argv[2] === WRITE_SLOT) {
  writeSlot();
  process.exit(0);
}

// Load the program here, and not by a static import. If a module cannot be loaded, for example with too few open files,
// Node would print a stack trace and exit with code 1. This code means that verify has found a problem.
const { printFailure, waitForReader } = await import('../common/cli/output.js').catch(failLoading);

// EPIPE means that the reader of the output stopped reading. The program did not fail.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : printFailure(error));
});
// The state is unknown after an unexpected error, so the process exits: the kernel releases its locks, and the next start
// recovers.
process.on('uncaughtException', (error) => process.exit(printFailure(error)));

const { runProgram } = await import('./cli/program.js');
const exitCode = await runProgram(process.argv.slice(2));
await waitForReader();
process.exit(exitCode);

function failLoading(error: Error): never {
  process.stderr.write(`plugpull queue: ${error.message.replace(/[^ -~]+/g, ' ')}\n`);
  process.exit(4);
}
