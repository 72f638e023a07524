#!/usr/bin/env node
import { fileURLToPath } from 'node:url';
import { printFailure } from './cli/output.js';
import { runProgram } from './cli/program.js';

// EPIPE means that the reader of the output stopped reading. The program did not fail.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : printFailure(error));
});
// The state is unknown after an unexpected error, so the process exits: the kernel releases its locks, and
// the next restore repairs the index.
process.on('uncaughtException', (error) => process.exit(printFailure(error)));

// Exit explicitly: a client or a failed worker may have left a handle open, which would keep the process
// alive.
process.exit(await runProgram(process.argv.slice(2), fileURLToPath(import.meta.url)));
