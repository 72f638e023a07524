/**
 * Upper bound of the output that is saved of one command. The rest is dropped: output is evidence, not data.
 */
const MAX_OUTPUT_BYTES = 8 * 1024 * 1024;

/**
 * Collects a stream's text, up to MAX_OUTPUT_BYTES.
 * @returns a function that returns the text collected so far.
 */
export function collectOutput(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  stream.on('data', (chunk: Buffer) => {
    if (sizeBytes < MAX_OUTPUT_BYTES) chunks.push(chunk);
    sizeBytes += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8');
}
