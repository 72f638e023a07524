import { createInterface } from 'node:readline';
import { QueueError } from '../platform/errors.js';
import type { FileOperation } from '../simulation/possible.js';
import { printLine } from './output.js';

interface Request {
  pages: number;
  operations: FileOperation[];
}

/**
 * Answers requests on stdin until it ends, one JSON object a line each way, so that the simulated medium can be held against
 * a real one:
 *
 *     {"pages": 4, "operations": [{"do": "store", "page": 0, "sector": 7, "value": 1}, {"do": "msync", "page": 0, "pages": 2}]}
 *     {"sectors": [[0], …, [0, 1], …]}   the values that each sector may have after a power cut
 */
export async function simulatedMedium(): Promise<void> {
  const { possibleSectors } = await import('../simulation/possible.js');
  for await (const line of createInterface({ input: process.stdin })) {
    const { pages, operations } = parse(line);
    await printLine({ sectors: possibleSectors(pages, operations) });
  }
}

function parse(line: string): Request {
  try {
    const request = JSON.parse(line) as Request;
    if (Number.isInteger(request.pages) && Array.isArray(request.operations)) return request;
  } catch {
    // Said below.
  }
  throw new QueueError(
    'bad-setting',
    `stdin: expected {"pages": N, "operations": […]}, found ${line.slice(0, 60)}`,
  );
}
