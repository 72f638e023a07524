/** A command's output beyond this is not kept: it is evidence, not data. */
const MAX_OUTPUT_BYTES = 8 * 1024 * 1024;

/** Gathers a stream's text, up to a limit. */
export function collectOutput(stream: NodeJS.ReadableStream): () => string {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  stream.on('data', (chunk: Buffer) => {
    if (sizeBytes < MAX_OUTPUT_BYTES) chunks.push(chunk);
    sizeBytes += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8');
}
