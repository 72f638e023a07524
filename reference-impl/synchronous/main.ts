#!/usr/bin/env node
import { fileURLToPath } from 'node:url';
import { printFailure } from './cli/output.js';
import { runProgram } from './cli/program.js';

// Whoever reads our output may stop reading; that is no failure of ours.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  process.exit(error.code === 'EPIPE' ? 0 : printFailure(error));
});
// After an error that nobody expected nothing is known of the state: the kernel gives the locks back, restore repairs.
process.on('uncaughtException', (error) => process.exit(printFailure(error)));

// Exits even where a client, or a worker that failed, has left something open.
process.exit(await runProgram(process.argv.slice(2), fileURLToPath(import.meta.url)));
