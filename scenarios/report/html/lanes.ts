import type { HistoryEvent } from '../../../conformance/history/events.js';
import { toDeltas, toTicks } from './columns.js';
import type { Lane } from './model.js';
import type { StringTable } from './strings.js';

interface Span {
  start: number;
  ticks: number;
  incarnation: number;
  end: number;
  expected: number;
}

/** Upper bound of the lanes: a target with more services than this would not fit on a screen. */
const MAX_LANES = 200;

/** Collects when the processes of each service ran. */
export class Lanes {
  readonly #spans = new Map<string, Span[]>();
  readonly #strings: StringTable;

  constructor(strings: StringTable) {
    this.#strings = strings;
  }

  note(event: HistoryEvent): void {
    if (event.kind === 'service-started') {
      const spans = this.#spans.get(event.service) ?? [];
      if (spans.length === 0 && this.#spans.size >= MAX_LANES) return;
      this.#spans.set(event.service, spans);
      const { incarnation } = event;
      spans.push({ start: toTicks(event.atMs), ticks: -1, incarnation, end: -1, expected: 1 });
    } else if (event.kind === 'service-exited') {
      const span = this.#spans
        .get(event.service)
        ?.findLast(({ incarnation, ticks }) => incarnation === event.incarnation && ticks < 0);
      if (span === undefined) return;
      span.ticks = Math.max(0, toTicks(event.atMs) - span.start);
      const how = event.signal ?? `exit code ${event.code ?? 'unknown'}`;
      span.end = this.#strings.numberOf(event.expected ? `${how}, by the kit` : `${how}, by itself`);
      span.expected = event.expected ? 1 : 0;
    }
  }

  end(): Lane[] {
    return [...this.#spans].map(([name, spans]) => {
      spans.sort((one, other) => one.start - other.start);
      return {
        name,
        kind: 'service',
        startTick: toDeltas(spans.map(({ start }) => start)),
        ticks: spans.map(({ ticks }) => ticks),
        incarnation: spans.map(({ incarnation }) => incarnation),
        end: spans.map(({ end }) => end),
        expected: spans.map(({ expected }) => expected),
      };
    });
  }
}
