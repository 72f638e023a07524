import type { Reporter } from './reporter.js';

/** One object on one line. */
export const json: Reporter = {
  name: 'json',
  stream: 'stdout',
  toFile: true,
  render: ({ data }) => `${JSON.stringify(data)}\n`,
};
