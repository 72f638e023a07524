import { createInterface } from 'node:readline';
import { printLine } from '../../common/cli/output.js';
import { QueueError } from '../../common/platform/errors.js';
import type { FileOperation } from '../../common/simulation/possible.js';

interface Request {
  pages: number;
  operations: FileOperation[];
}

/**
 * Runs the `simulated-medium` command. It reads requests from stdin until stdin ends. Request and answer are
 * one line of JSON each. A request lists operations on a mapped file of `pages` pages of zeros. The answer
 * lists, for each sector of the file, the values that the sector may have after a power cut that follows the
 * operations. A test runs this command to compare the simulated medium with a real disk. In the example, the
 * msync fixes sector 7, and the later store leaves sector 0 open:
 *
 *     {"pages": 1, "operations": [{"do": "store", "page": 0, "sector": 7, "value": 1},
 *         {"do": "msync", "page": 0, "pages": 1}, {"do": "store", "page": 0, "sector": 0, "value": 2}]}
 *     {"sectors": [[0, 2], [0, 0], …, [1, 1]]}
 */
export async function simulatedMedium(): Promise<void> {
  const { possibleSectors } = await import('../../common/simulation/possible.js');
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
    // The error below reports it.
  }
  throw new QueueError(
    'bad-setting',
    `stdin: expected {"pages": N, "operations": […]}, found ${line.slice(0, 60)}`,
  );
}
