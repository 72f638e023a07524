import type { HistoryEvent } from '../../../conformance/history/events.js';
import type { ReportSource } from './source.js';
import { shorten } from './strings.js';

/*
 * The trace of a run in the format of Chrome's trace viewer, which Perfetto reads too. A message is an async event
 * (`b` … `e`), because thousands of them overlap. A process of a service is a complete event (`X`) on the track of the
 * service. A fault is an instant event (`i`).
 */

/** One event of the trace. Times are in microseconds. */
export interface TraceEvent {
  name: string;
  cat?: string;
  ph: 'b' | 'e' | 'n' | 'X' | 'i' | 'M' | 'C';
  ts: number;
  pid: number;
  tid: number;
  /** Only for async events: those with the same category and id belong together. */
  id?: string;
  /** Only for complete events. */
  dur?: number;
  /** Only for instant events: the scope, `g` for the whole trace, `p` for a process. */
  s?: 'g' | 'p';
  args?: Record<string, unknown>;
}

/** Ids of the tracks that every run has. */
const FAULTS_TRACK = 1;
const FIRST_PRODUCER_TRACK = 1000;
const FIRST_SERVICE_TRACK = 2;

/** Beginning of a trace, by which the kit recognises its own traces. */
const TRACE_HEAD = '{"otherData":{"writtenBy":"plugpull"';

/** Returns whether a file begins as a trace that the kit wrote. */
export function isTrace(head: string): boolean {
  return head.startsWith(TRACE_HEAD);
}

/** Returns the text of a trace file. */
export function traceText(source: ReportSource): string {
  const events = source.runs.flatMap(({ name, events }, index) =>
    traceOf(events, index + 1, name || source.target),
  );
  const facts = { target: source.target, seed: source.seed, verdict: source.verdict, why: source.why };
  const head = `${TRACE_HEAD},"facts":${JSON.stringify(facts)}},"displayTimeUnit":"ms","traceEvents":[`;
  return `${head}\n${events.map((event) => JSON.stringify(event)).join(',\n')}\n]}\n`;
}

/** Makes the events of one run, in the order of their times. */
export function traceOf(events: readonly HistoryEvent[], pid: number, name: string): TraceEvent[] {
  const trace = new RunTrace(pid, name);
  for (const event of events) trace.note(event);
  return trace.end(events.at(-1)?.atMs ?? 0);
}

interface OpenMessage {
  tid: number;
  /** The message is open until it is consumed or the run ends. */
  open: boolean;
  /** The submit is open until its answer. */
  submitOpen: boolean;
}

class RunTrace {
  readonly #pid: number;
  readonly #events: TraceEvent[] = [];
  readonly #meta: TraceEvent[] = [];
  readonly #tracks = new Map<string, number>();
  readonly #messages = new Map<string, OpenMessage>();
  readonly #running = new Map<string, { ts: number; tid: number; name: string }>();

  constructor(pid: number, name: string) {
    this.#pid = pid;
    this.#meta.push(this.#event('process_name', 'M', 0, 0, { args: { name: shorten(name, 200) } }));
    this.#nameTrack(FAULTS_TRACK, 'faults');
  }

  note(event: HistoryEvent): void {
    const ts = Math.round(event.atMs * 1000);
    switch (event.kind) {
      case 'submitted': {
        if (this.#messages.has(event.id)) break;
        const tid = this.#track(`producer ${event.producer}`, FIRST_PRODUCER_TRACK);
        this.#messages.set(event.id, { tid, open: true, submitOpen: true });
        const { producer, sizeBytes, shape } = event;
        this.#async('b', ts, event.id, 'message', { producer, sizeBytes, shape });
        this.#async('b', ts, event.id, 'submit');
        break;
      }
      case 'answered': {
        const message = this.#messages.get(event.id);
        if (message?.submitOpen !== true) break;
        message.submitOpen = false;
        this.#async('e', ts, event.id, 'submit', {
          outcome: event.outcome,
          detail: shorten(event.detail, 300),
        });
        break;
      }
      case 'delivered':
        if (event.id !== null) this.#async('n', ts, event.id, 'delivered', { delivery: event.sequence });
        break;
      case 'refused':
        if (event.id !== null)
          this.#async('n', ts, event.id, 'refused', { detail: shorten(event.detail, 300) });
        break;
      case 'consumed':
        if (event.id !== null) this.#close(event.id, ts, { how: event.how });
        break;
      case 'service-started': {
        const tid = this.#track(event.service, FIRST_SERVICE_TRACK);
        const name = `${event.service} ${event.incarnation}`;
        this.#running.set(name, { ts, tid, name });
        break;
      }
      case 'service-exited':
        this.#exit(`${event.service} ${event.incarnation}`, ts, {
          end: event.signal ?? event.code,
          byTheKit: event.expected,
        });
        break;
      case 'fault':
        this.#events.push(
          this.#event(event.fault, 'i', ts, FAULTS_TRACK, {
            cat: 'fault',
            s: event.scope === 'none' ? 'p' : 'g',
            args: {
              injection: event.injection,
              hit: event.hit,
              scope: event.scope,
              detail: shorten(event.detail, 600),
            },
          }),
        );
        break;
      case 'recovered':
      case 'recovery-failed':
      case 'healed':
        this.#events.push(
          this.#event(event.kind, 'i', ts, FAULTS_TRACK, {
            cat: 'recovery',
            s: 'p',
            args: { injection: event.injection },
          }),
        );
        break;
      case 'at-risk':
        this.#events.push(
          this.#event('messages at risk', 'C', ts, 0, {
            args: { confirmed: event.confirmedUndelivered, inFlight: event.inFlight },
          }),
        );
        break;
      default:
        break;
    }
  }

  /** Closes all open events: viewers draw an async event without an end to the end of the trace. */
  end(endMs: number): TraceEvent[] {
    const ts = Math.round(endMs * 1000);
    for (const name of [...this.#running.keys()]) this.#exit(name, ts, { end: 'the run ended' });
    for (const id of this.#messages.keys()) this.#close(id, ts, { how: 'never consumed' });
    this.#events.sort((one, other) => one.ts - other.ts);
    return [...this.#meta, ...this.#events];
  }

  #close(id: string, ts: number, args: Record<string, unknown>): void {
    const message = this.#messages.get(id);
    if (message?.open !== true) return;
    message.open = false;
    // The answer may come after the delivery. The submit must end inside its message.
    if (message.submitOpen) {
      message.submitOpen = false;
      this.#async('e', ts, id, 'submit', { outcome: 'no answer before the message was consumed' });
    }
    this.#async('e', ts, id, 'message', args);
  }

  #exit(name: string, ts: number, args: Record<string, unknown>): void {
    const running = this.#running.get(name);
    if (running === undefined) return;
    this.#running.delete(name);
    this.#events.push(
      this.#event(running.name, 'X', running.ts, running.tid, {
        cat: 'service',
        dur: Math.max(0, ts - running.ts),
        args,
      }),
    );
  }

  #async(ph: 'b' | 'e' | 'n', ts: number, id: string, name: string, args?: Record<string, unknown>): void {
    const message = this.#messages.get(id);
    if (message === undefined) return;
    const title = name === 'message' ? `message ${shorten(id, 200)}` : name;
    this.#events.push(
      this.#event(title, ph, ts, message.tid, {
        cat: 'message',
        id: shorten(id, 200),
        ...(args === undefined ? {} : { args }),
      }),
    );
  }

  #track(name: string, first: number): number {
    const known = this.#tracks.get(name);
    if (known !== undefined) return known;
    const tid = first + this.#tracks.size;
    this.#tracks.set(name, tid);
    this.#nameTrack(tid, name);
    return tid;
  }

  #nameTrack(tid: number, name: string): void {
    this.#meta.push(this.#event('thread_name', 'M', 0, tid, { args: { name: shorten(name, 200) } }));
  }

  #event(name: string, ph: TraceEvent['ph'], ts: number, tid: number, more: Partial<TraceEvent>): TraceEvent {
    return { name, ph, ts, pid: this.#pid, tid, ...more };
  }
}
