import { limit } from '../../conformance/limits.js';

/**
 * Collects a stream's text, up to `command-output-bytes`. The rest is dropped: output is evidence, not data.
 * @returns a function that returns the text collected so far.
 */
export function collectOutput(stream: NodeJS.ReadableStream): () => string {
  const maxBytes = limit('command-output-bytes');
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  stream.on('data', (chunk: Buffer) => {
    if (sizeBytes < maxBytes) chunks.push(chunk.subarray(0, maxBytes - sizeBytes));
    sizeBytes += chunk.length;
  });
  return () => Buffer.concat(chunks).toString('utf8');
}
