import type { Evaluation } from '../../../conformance/checkers/evaluate.js';
import { type Loss, lossesOf } from '../../../conformance/checkers/losses.js';
import type { FaultInjected, HistoryEvent } from '../../../conformance/history/events.js';
import type { FileHabit } from '../../../faults/tracing/file-habits.js';
import { toTicks } from './columns.js';
import { fileCuts } from './file-cuts.js';
import { Lanes } from './lanes.js';
import { MessageCollector } from './message-columns.js';
import type { Injection, RunModel } from './model.js';
import { producerLosses } from './producer-losses.js';
import { StringTable, shorten } from './strings.js';

/** One run of the evidence. */
export interface ReportRun {
  /** Name of the run, such as the level of a certificate; empty when there is only one. */
  name: string;
  events: readonly HistoryEvent[];
  /** Result of the checkers; undefined when the claims of the target are not known. */
  evaluation: Evaluation | undefined;
}

/** The model of a run, and what other parts of the report need of it. */
export interface BuiltRun {
  run: ReportRun;
  model: RunModel;
  losses: ReadonlyMap<string, Loss>;
  messageIndex: ReadonlyMap<string, number>;
  faultEvents: readonly FaultInjected[];
}

/** Reports whether a run is an exploration: it loses messages in its states and not in the run that it records. */
export function isExploration({ run }: Pick<BuiltRun, 'run'>): boolean {
  return run.events.some(({ kind }) => kind === 'state-explored');
}

/** Upper bound of the injections of a run that a report shows. A sweep of an hour makes some thousand. */
const MAX_INJECTIONS = 20_000;

/**
 * Makes the model of one run.
 * @param faultIndex returns the index of a fault's row by its name.
 */
export function buildRun(
  run: ReportRun,
  faultIndex: (name: string) => number,
  habits: readonly FileHabit[],
): BuiltRun {
  const { events, evaluation } = run;
  const strings = new StringTable();
  const messages = new MessageCollector(strings);
  const lanes = new Lanes(strings);
  const injections = new Injections(faultIndex);
  const rounds: RunModel['rounds'] = [];
  let omittedEvents = 0;
  let endMs = 0;
  for (const event of events) {
    endMs = Math.max(endMs, event.atMs);
    messages.note(event);
    lanes.note(event);
    injections.note(event);
    if (event.kind === 'installed') rounds.push({ round: event.round, tick: toTicks(event.atMs) });
    if (event.kind === 'uneventful') omittedEvents += event.events;
  }
  const losses = lossesOf(events);
  const lostBy = new Map<string, number>();
  for (const [id, { fault }] of losses) {
    const index = fault === undefined ? -1 : injections.events.indexOf(fault);
    if (index < 0) continue;
    lostBy.set(id, index);
    const injection = injections.list[index];
    if (injection !== undefined) injection.lost += 1;
  }
  const named = (test: (requirement: string) => boolean) =>
    new Set(
      (evaluation?.findings ?? [])
        .filter(({ requirement, verdict }) => verdict === 'fail' && test(requirement))
        .flatMap(({ violations }) => violations.flatMap(({ id }) => id ?? [])),
    );
  const columns = messages.columns({
    lost: new Set(losses.keys()),
    lostBy,
    duplicated: named((requirement) => requirement === 'PP-2'),
    violated: named((requirement) => requirement !== 'PP-1' && requirement !== 'PP-2'),
  });
  return {
    run,
    losses,
    messageIndex: messages.indexById,
    faultEvents: injections.events,
    model: {
      name: run.name,
      endTick: toTicks(endMs),
      rounds,
      lanes: lanes.end(),
      injections: injections.list,
      messages: columns,
      producers: producerLosses(columns),
      fileCuts: fileCuts(injections.events, habits),
      omittedEvents,
      strings: strings.strings,
    },
  };
}

/** Collects the injections, each with its risk, its end and its recovery. */
class Injections {
  readonly list: Injection[] = [];
  readonly events: FaultInjected[] = [];
  readonly #byNumber = new Map<number, Injection>();
  readonly #risks = new Map<number, Extract<HistoryEvent, { kind: 'at-risk' }>>();
  readonly #faultIndex: (name: string) => number;
  #round = 1;

  constructor(faultIndex: (name: string) => number) {
    this.#faultIndex = faultIndex;
  }

  note(event: HistoryEvent): void {
    switch (event.kind) {
      case 'installed':
        this.#round = event.round;
        break;
      case 'at-risk':
        this.#risks.set(event.injection, event);
        break;
      case 'fault':
        if (this.list.length < MAX_INJECTIONS) this.#add(event);
        break;
      case 'healed':
        this.#set(event.injection, { healedTick: toTicks(event.atMs) });
        break;
      case 'recovered':
        this.#set(event.injection, { recoveredTick: toTicks(event.atMs), recoveryMs: event.tookMs });
        break;
      case 'recovery-failed':
        this.#set(event.injection, { recoveryFailure: shorten(event.detail || 'it did not become ready') });
        break;
      default:
        break;
    }
  }

  #set(number: number, values: Partial<Injection>): void {
    const injection = this.#byNumber.get(number);
    if (injection !== undefined) Object.assign(injection, values);
  }

  #add(event: FaultInjected): void {
    const tick = toTicks(event.atMs);
    const risk = this.#risks.get(event.injection);
    const failingMs = Math.max(event.failingMs, event.failed?.sinceMs ?? 0);
    const injection: Injection = {
      tick,
      sinceTick: Math.max(0, tick - toTicks(failingMs)),
      ...{ healedTick: -1, recoveredTick: -1, recoveryMs: -1, recoveryFailure: '' },
      fault: this.#faultIndex(event.fault),
      number: event.injection,
      round: this.#round,
      hit: event.hit,
      scope: event.scope,
      services: event.services,
      detail: shorten(event.detail),
      atRisk: risk?.confirmedUndelivered ?? 0,
      inFlight: risk?.inFlight ?? 0,
      inDelivery: risk?.inDelivery ?? 0,
      lost: 0,
    };
    this.list.push(injection);
    this.events.push(event);
    this.#byNumber.set(event.injection, injection);
  }
}
