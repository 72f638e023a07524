/** Prints a line of progress or prose to stderr. */
export function log(line: string): void {
  process.stderr.write(`${line}\n`);
}

/** Prints a line of data to stdout. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Prints a result as one JSON object on one line of stdout. */
export function printJson(data: unknown): void {
  print(JSON.stringify(data));
}

/** Lets the reader of our output stop reading: a closed pipe ends the output, not the work. Other stream errors are thrown. */
export function ignoreClosedPipes(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
    });
  }
}
