import type { Recorder } from '../history/recorder.js';
import type { Receipts } from './protocol.js';

/**
 * Makes a `Receipts` that records each report of a receiver in a history. Deliveries are numbered in order of
 * arrival, from 1.
 */
export function recordReceipts(recorder: Recorder): Receipts {
  let sequence = 0;
  return {
    delivered({ bytes: _bytes, ...what }) {
      sequence += 1;
      recorder.record({ kind: 'delivered', sequence, ...what });
      return sequence;
    },
    consumed: (sequence, id, how) => void recorder.record({ kind: 'consumed', sequence, id, how }),
    refused: (sequence, id, permanent, detail) =>
      void recorder.record({ kind: 'refused', sequence, id, permanent, detail }),
    settled: (sequences, how) => void recorder.record({ kind: 'settled', sequences, how }),
  };
}
