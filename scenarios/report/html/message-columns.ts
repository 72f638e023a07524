import type { HistoryEvent } from '../../../conformance/history/events.js';
import { toDeltas, toTicks } from './columns.js';
import type { MessageColumns, OutcomeCode } from './model.js';
import { type StringTable, shorten } from './strings.js';

/** What the report shows of one message, while the events are read. */
interface MessageStory {
  id: string;
  producer: number;
  round: number;
  sizeBytes: number;
  submitted: number;
  answered: number;
  outcome: OutcomeCode;
  answer: number;
  delivered: number;
  consumed: number;
  deliveries: number;
  later: number[];
  refused: { tick: number; why: number }[];
  changed: boolean;
}

const OUTCOME_CODES = { confirmed: 0, rejected: 1, indefinite: 2 } as const;
/** Upper bound of the later deliveries and refusals that are kept for one message. */
const MAX_REPEATS = 50;

/** What other parts know of a message by its id. */
export interface MessageNotes {
  lost: ReadonlySet<string>;
  /** Index of the injection that took a message. */
  lostBy: ReadonlyMap<string, number>;
  /** Messages that a violation of PP-2 names, and those that any other violation names. */
  duplicated: ReadonlySet<string>;
  violated: ReadonlySet<string>;
}

/** Collects the stories of messages from events, in order of submit, and makes the columns of them. */
export class MessageCollector {
  readonly indexById = new Map<string, number>();
  readonly #stories: MessageStory[] = [];
  readonly #strings: StringTable;
  readonly #digests = new Map<string, string>();
  #round = 1;

  constructor(strings: StringTable) {
    this.#strings = strings;
  }

  note(event: HistoryEvent): void {
    switch (event.kind) {
      case 'installed':
        this.#round = event.round;
        break;
      case 'submitted':
        this.#submit(event);
        break;
      case 'answered': {
        const story = this.#storyOf(event.id);
        if (story === undefined) break;
        story.answered = toTicks(event.atMs);
        story.outcome = OUTCOME_CODES[event.outcome];
        story.answer = this.#strings.numberOf(event.detail);
        break;
      }
      case 'delivered': {
        const story = this.#storyOf(event.id);
        if (story === undefined) break;
        const tick = toTicks(event.atMs);
        story.deliveries += 1;
        if (story.delivered < 0) story.delivered = tick;
        else if (story.later.length < MAX_REPEATS) story.later.push(tick);
        story.changed ||= event.difference !== undefined || event.digest !== this.#digests.get(story.id);
        break;
      }
      case 'consumed': {
        const story = this.#storyOf(event.id);
        if (story !== undefined && story.consumed < 0) story.consumed = toTicks(event.atMs);
        break;
      }
      case 'refused': {
        const story = this.#storyOf(event.id);
        if (story !== undefined && story.refused.length < MAX_REPEATS)
          story.refused.push({ tick: toTicks(event.atMs), why: this.#strings.numberOf(event.detail) });
        break;
      }
      default:
        break;
    }
  }

  #submit(event: Extract<HistoryEvent, { kind: 'submitted' }>): void {
    if (this.indexById.has(event.id)) return;
    this.indexById.set(event.id, this.#stories.length);
    this.#digests.set(event.id, event.digest);
    this.#stories.push({
      id: event.id,
      producer: event.producer,
      round: this.#round,
      sizeBytes: event.sizeBytes,
      submitted: toTicks(event.atMs),
      ...{ answered: -1, outcome: 3, answer: -1, delivered: -1, consumed: -1, deliveries: 0 },
      ...{ later: [], refused: [], changed: false },
    });
  }

  #storyOf(id: string | null): MessageStory | undefined {
    return id === null ? undefined : this.#stories[this.indexById.get(id) ?? -1];
  }

  columns({ lost, lostBy, duplicated, violated }: MessageNotes): MessageColumns {
    const stories = this.#stories;
    const since = (tick: number, { submitted }: MessageStory) =>
      tick < 0 ? -1 : Math.max(0, tick - submitted);
    const repeats = stories.flatMap((story, message) =>
      story.later.map((tick) => ({ message, ticks: since(tick, story) })),
    );
    const refusals = stories.flatMap((story, message) =>
      story.refused.map(({ tick, why }) => ({ message, ticks: since(tick, story), why })),
    );
    const flagsOf = ({ id, changed }: MessageStory) =>
      (lost.has(id) ? 1 : 0) + (changed ? 2 : 0) + (duplicated.has(id) ? 4 : 0) + (violated.has(id) ? 8 : 0);
    return {
      id: stories.map(({ id }) => shorten(id, MAX_ID_LENGTH)),
      producer: stories.map(({ producer }) => producer),
      round: stories.map(({ round }) => round),
      sizeBytes: stories.map(({ sizeBytes }) => sizeBytes),
      submittedTick: toDeltas(stories.map(({ submitted }) => submitted)),
      answeredTicks: stories.map((story) => since(story.answered, story)),
      outcome: stories.map(({ outcome }) => outcome),
      answer: stories.map(({ answer }) => answer),
      deliveredTicks: stories.map((story) => since(story.delivered, story)),
      consumedTicks: stories.map((story) => since(story.consumed, story)),
      deliveries: stories.map(({ deliveries }) => deliveries),
      lostBy: stories.map(({ id }) => lostBy.get(id) ?? -1),
      flags: stories.map(flagsOf),
      later: {
        message: toDeltas(repeats.map(({ message }) => message)),
        ticks: repeats.map(({ ticks }) => ticks),
      },
      refused: {
        message: toDeltas(refusals.map(({ message }) => message)),
        ticks: refusals.map(({ ticks }) => ticks),
        why: refusals.map(({ why }) => why),
      },
    };
  }
}

/** Longest id of a message that a report shows, in characters. Ids of the kit have fewer than 20. */
const MAX_ID_LENGTH = 200;
