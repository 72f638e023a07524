import type { Reporter } from './reporter.js';

/** The report for people. */
export const list: Reporter = {
  name: 'list',
  stream: 'stderr',
  toFile: true,
  render: (outcome, style) => `${outcome.lines(style).join('\n')}\n`,
};
