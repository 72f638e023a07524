import { createHash } from 'node:crypto';
import { connect } from 'node:net';
import { log } from '../../host/console.js';
import { GatewayProcess } from '../gateway-process.js';
import { FuzzSink } from './fuzz-sink.js';
import { planOf, type SessionPlan } from './grammar.js';
import { judge, type Reply } from './model.js';

/** Options of a fuzz run. */
export interface FuzzOptions {
  /** Path of the queue's program. */
  program: string;
  /** Directory for the queue. */
  directory: string;
  seed: number;
  /** The run ends after this number of sessions or seconds. */
  sessions: number;
  seconds: number;
  /** Number of sessions after which a worker is killed. */
  killEvery: number;
}

/** The counts of a fuzz run. */
export interface FuzzResult {
  seed: number;
  sessions: number;
  /** Sessions that found their worker down. */
  notConnected: number;
  kills: number;
  crashes: number;
  confirmed: number;
  refused: number;
  indefinite: number;
  arrived: number;
  duplicates: number;
  /** Messages that the next hop deferred or broke off. */
  sinkFaults: number;
  /** What must not have happened, one line each. The list is empty if nothing was lost, changed, split or smuggled. */
  problems: string[];
}

/** The messages with the same envelope and the same bytes. */
interface Expected {
  session: number;
  confirmed: number;
  indefinite: number;
  arrivals: number;
}

const WORKERS = 2;
const CONCURRENT_SESSIONS = 16;
const MAX_MESSAGE_BYTES = 128 * 1024;
const INSTALL = ['--data-bytes', '64MiB', '--entries', '20000'];
const FLAGS = [
  ...['--smtp-max-message-bytes', `${MAX_MESSAGE_BYTES}`],
  ...['--delivery-backoff-initial-ms', '50ms', '--delivery-backoff-max-ms', '500ms'],
];
/** Number of messages that a worker can have sent and not yet consumed when it is killed (`delivery.batchMessages`). */
const MAX_DUPLICATES_PER_KILL = 256;
/** Longest wait for the end of a session, and for the last messages without another arrival, in milliseconds. */
const PATIENCE_MS = 60_000;
const MAX_PROBLEMS = 50;

/**
 * Sends random sessions to a gateway of two workers, kills workers meanwhile, and compares what arrives at the next hop
 * with what was sent, byte by byte.
 */
export async function fuzzSmtp(options: FuzzOptions): Promise<FuzzResult> {
  const run = new FuzzRun(options);
  return run.run();
}

class FuzzRun {
  readonly #options: FuzzOptions;
  readonly #expected = new Map<string, Expected>();
  /** Arrivals whose session has not ended yet, by their key. */
  readonly #early = new Map<string, { arrivals: number; what: string }>();
  readonly #result: FuzzResult;
  #nextSession = 0;
  #missing = 0;
  #lastArrivalMs = performance.now();

  constructor(options: FuzzOptions) {
    this.#options = options;
    this.#result = {
      ...{ seed: options.seed, sessions: 0, notConnected: 0, kills: 0, crashes: 0, confirmed: 0, refused: 0 },
      ...{ indefinite: 0, arrived: 0, duplicates: 0, sinkFaults: 0, problems: [] },
    };
  }

  async run(): Promise<FuzzResult> {
    const { program, directory, seconds } = this.#options;
    const sink = new FuzzSink(({ sender, recipients, data }) => {
      this.#lastArrivalMs = performance.now();
      this.#arrive(
        keyOf(sender, recipients, withoutTrace(data)),
        `${sender} to ${recipients}, ${data.length} bytes`,
      );
    });
    const nextHop = `127.0.0.1:${await sink.listen()}`;
    const gateway = await GatewayProcess.start({
      ...{ program, directory, workers: WORKERS, nextHop },
      ...{ install: INSTALL, flags: FLAGS },
    });
    try {
      const endMs = performance.now() + seconds * 1000;
      await Promise.all(Array.from({ length: CONCURRENT_SESSIONS }, () => this.#runSessions(gateway, endMs)));
      this.#lastArrivalMs = performance.now();
      while (this.#missing > 0 && performance.now() - this.#lastArrivalMs < PATIENCE_MS) await pause(100);
    } finally {
      await gateway.stop();
      sink.close();
    }
    this.#result.crashes = gateway.crashes;
    this.#result.sinkFaults = sink.faults;
    this.#check();
    return this.#result;
  }

  async #runSessions(gateway: GatewayProcess, endMs: number): Promise<void> {
    const { seed, sessions, killEvery } = this.#options;
    while (this.#nextSession < sessions && performance.now() < endMs) {
      const index = this.#nextSession;
      this.#nextSession += 1;
      if (index % killEvery === killEvery - 1 && gateway.killWorker(Math.floor(index / killEvery) % WORKERS))
        this.#result.kills += 1;
      const plan = planOf(seed, index);
      const { kills } = this.#result;
      const { isConnected, replies } = await runSession(gateway.ports[index % WORKERS] ?? 0, plan);
      if (replies === undefined)
        this.#problem(index, `the session did not end within ${PATIENCE_MS / 1000} s`);
      if (!isConnected) {
        this.#result.notConnected += 1;
        await pause(20);
      } else if (replies !== undefined) this.#judge(index, plan, replies, kills === this.#result.kills);
      this.#result.sessions += 1;
    }
  }

  /** @param isUndisturbed whether no worker was killed during the session */
  #judge(index: number, plan: SessionPlan, replies: Reply[], isUndisturbed: boolean): void {
    // The first reply is the greeting.
    const { messages, problems, unanswered } = judge(
      plan.wire.subarray(0, plan.end.sentBytes),
      replies.slice(1),
      MAX_MESSAGE_BYTES,
    );
    for (const problem of problems) this.#problem(index, problem);
    const mustBeAnswered = isUndisturbed && plan.end.how === 'fin' && replies.length > 0;
    if (mustBeAnswered && unanswered !== undefined) this.#problem(index, `${unanswered} got no reply`);
    for (const { sender, recipients, data, outcome } of messages) {
      this.#result[outcome] += 1;
      if (outcome === 'refused') continue;
      const key = keyOf(sender, recipients, data);
      const known = this.#expected.get(key);
      const expected = known ?? { session: index, confirmed: 0, indefinite: 0, arrivals: 0 };
      this.#expected.set(key, expected);
      this.#missing -= missingOf(expected);
      expected[outcome] += 1;
      expected.arrivals += this.#early.get(key)?.arrivals ?? 0;
      this.#early.delete(key);
      this.#missing += missingOf(expected);
    }
  }

  #arrive(key: string, what: string): void {
    this.#result.arrived += 1;
    const expected = this.#expected.get(key);
    if (expected === undefined) {
      this.#early.set(key, { arrivals: (this.#early.get(key)?.arrivals ?? 0) + 1, what });
      return;
    }
    this.#missing -= missingOf(expected);
    expected.arrivals += 1;
    this.#missing += missingOf(expected);
  }

  #check(): void {
    const { kills, crashes } = this.#result;
    for (const { what } of this.#early.values())
      this.#problem(undefined, `a message arrived that was not sent so, or was refused: ${what}`);
    for (const expected of this.#expected.values()) {
      const { session, confirmed, indefinite, arrivals } = expected;
      if (missingOf(expected) > 0)
        this.#problem(session, `a confirmed message is lost (${arrivals} of ${confirmed})`);
      const duplicates = Math.max(0, arrivals - confirmed - indefinite);
      this.#result.duplicates += duplicates;
      if (duplicates > kills + crashes) this.#problem(session, `a message arrived ${arrivals} times`);
    }
    if (crashes > 0) this.#problem(undefined, `a worker died ${crashes} times although nobody killed it`);
    const most = (kills + crashes) * MAX_DUPLICATES_PER_KILL;
    if (this.#result.duplicates > most)
      this.#problem(undefined, `${this.#result.duplicates} duplicates, expected at most ${most}`);
  }

  #problem(session: number | undefined, what: string): void {
    const { problems } = this.#result;
    const line = session === undefined ? what : `session ${session}: ${what}`;
    if (problems.length === 0) log(`smtp-fuzz: ${line}`);
    if (problems.length < MAX_PROBLEMS) problems.push(line);
  }
}

const missingOf = ({ confirmed, arrivals }: Expected): number => Math.max(0, confirmed - arrivals);

function keyOf(sender: string, recipients: readonly string[], data: Buffer): string {
  return createHash('sha1')
    .update([sender, ...recipients].join('\n'), 'latin1')
    .update('\0')
    .update(data)
    .digest('base64');
}

/** Removes the trace header that a gateway puts before a message (RFC 5321 4.4). No message of the fuzz has one. */
function withoutTrace(data: Buffer): Buffer {
  const trace = /^Received:[^\r\n]*\r\n(?:\t[^\r\n]*\r\n){2}/.exec(data.toString('latin1', 0, 4096));
  return trace === null ? data : data.subarray(trace[0].length);
}

/** Runs one session. `replies` is undefined if it did not end. */
function runSession(
  port: number,
  plan: SessionPlan,
): Promise<{ isConnected: boolean; replies: Reply[] | undefined }> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true, allowHalfOpen: true });
    let text = '';
    let isOver = false;
    let isConnected = false;
    socket.on('connect', () => {
      isConnected = true;
    });
    let onReply: () => void = () => undefined;
    const timer = setTimeout(() => finish(undefined), PATIENCE_MS);
    const finish = (replies: Reply[] | undefined) => {
      isOver = true;
      clearTimeout(timer);
      socket.destroy();
      onReply();
      resolve({ isConnected, replies });
    };
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      onReply();
    });
    socket.on('end', () => socket.end());
    socket.on('error', () => undefined);
    socket.on('close', () => finish(parseReplies(text)));
    const reply = () =>
      new Promise<void>((resolveReply) => {
        onReply = resolveReply;
        setTimeout(resolveReply, 5);
      });
    void sendPlan(plan, {
      write: (bytes) => socket.writable && socket.write(bytes),
      pause: () => (plan.waits ? reply() : new Promise<void>((done) => setImmediate(done))),
      isOver: () => isOver,
    }).then(() => {
      if (plan.end.how === 'fin') socket.end();
      else if (plan.end.how === 'destroy') socket.destroy();
      else socket.resetAndDestroy();
    });
  });
}

async function sendPlan(
  { wire, cuts, end }: SessionPlan,
  client: { write: (bytes: Buffer) => unknown; pause: () => Promise<void>; isOver: () => boolean },
): Promise<void> {
  await client.pause();
  let from = 0;
  for (const to of [...cuts, wire.length]) {
    const last = Math.min(to, end.sentBytes);
    if (last <= from || client.isOver()) continue;
    client.write(wire.subarray(from, last));
    from = last;
    await client.pause();
  }
}

function parseReplies(text: string): Reply[] {
  const replies: Reply[] = [];
  // A line that is not whole was cut off by the end of the connection.
  for (const line of text.split('\r\n').slice(0, -1)) {
    const match = /^(\d{3})([ -]?)(.*)$/s.exec(line);
    if (match === null) replies.push({ code: 999, text: line });
    else if (match[2] !== '-') replies.push({ code: Number(match[1]), text: match[3] ?? '' });
  }
  return replies;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
