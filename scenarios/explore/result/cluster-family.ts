/**
 * The rule by which a state of a cluster was chosen.
 *
 * - all nodes lose their power: `all-lost` (each loses what it had not flushed), `all-kept` (none loses anything that was
 *   complete), `one-lost` (only one of them loses it), `torn` (the write under way of each is torn), `random`
 * - one node loses its power, and the processes of the others are killed: `one-cut`, `one-cut-random`
 * - all nodes lose their power, and one machine does not come back: `away`, `away-random`
 */
export type ClusterFamily =
  | 'all-lost'
  | 'all-kept'
  | 'one-lost'
  | 'torn'
  | 'random'
  | 'one-cut'
  | 'one-cut-random'
  | 'away'
  | 'away-random';
