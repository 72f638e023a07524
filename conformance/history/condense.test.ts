import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import t from 'tap';
import { type Evaluation, evaluate } from '../checkers/evaluate.js';
import { HistoryBuilder } from '../fixtures/history-builder.js';
import { seeded } from '../fixtures/random.js';
import type { Guarantee } from '../target-file/definition.js';
import { countEvents } from './condense.js';
import { HISTORY_FORMAT, type HistoryEvent, type Untimed } from './events.js';
import { packFile } from './lines.js';
import { readHistory, readPackedHistory } from './reader.js';

const dir = mkdtempSync(join(tmpdir(), 'plugpull-condense-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));
let files = 0;

function write(events: readonly HistoryEvent[]): string {
  const file = join(dir, `${files++}.jsonl`);
  writeFileSync(file, events.map((event) => `${JSON.stringify(event)}\n`).join(''));
  return file;
}

function readWithLimits(
  file: string,
  limits: string,
  read: (file: string, name: string) => HistoryEvent[] = readHistory,
): HistoryEvent[] {
  process.env.PLUGPULL_LIMITS = limits;
  try {
    return read(file, 'packed');
  } finally {
    delete process.env.PLUGPULL_LIMITS;
  }
}

const GUARANTEE: Guarantee = {
  faults: ['kill', 'power-cut', 'full', 'io-error', 'tear', 'data-rot'],
  duplicatesPerCrash: 1,
  recoverySeconds: 10,
};

/**
 * Makes a history of some hundred messages. Most of them are confirmed, delivered once and consumed. Each of the others
 * is a case that a checker judges, so that every checker has something to count, and some have a violation to report.
 */
function randomHistory(seed: number): HistoryEvent[] {
  const random = seeded(seed);
  const events: HistoryEvent[] = [];
  const record = (event: Untimed<HistoryEvent>) =>
    void events.push({ ...event, atMs: events.length } as HistoryEvent);
  const pick = <T>(...some: T[]): T => some[random.int(some.length)] as T;
  const protocol = pick('http', 'amqp', 'smtp');
  const faults = ['kill', 'power-cut', 'full', 'io-error'];
  const run = { target: 't', protocol, seed, faults, startedAt: '', kitVersion: '0' };
  record({ kind: 'run-started', format: HISTORY_FORMAT, ...run });
  record({ kind: 'installed', round: 1 });
  let sequence = 0;
  let injection = 0;
  const deliver = (id: string | null, digest: string, recipients: number[]) => {
    sequence += 1;
    record({ kind: 'delivered', sequence, id, sizeBytes: 9, digest, recipients });
    return sequence;
  };
  const consume = (id: string, digest: string, recipients: number[]) => {
    const number = deliver(id, digest, recipients);
    const how = protocol === 'http' ? pick('answered' as const, 'unanswered' as const) : 'accepted';
    record({ kind: 'consumed', sequence: number, id, how });
    if (how === 'accepted') record({ kind: 'settled', sequences: [number], how: pick('known', 'broken') });
  };
  const answer = (id: string, outcome: 'confirmed' | 'rejected' | 'indefinite') =>
    record({ kind: 'answered', id, outcome, detail: 'd' });
  // What the messages still have to do, one step at a time, so that the events of several messages mix.
  const steps: (() => void)[][] = [];
  for (let number = 0; number < 250; number++) {
    const id = `1-0-${number}`;
    const digest = `digest ${number}`;
    const all = number % 7 === 0 ? [0, 1] : [0];
    const submit = () =>
      record({
        kind: 'submitted',
        id,
        producer: 0,
        sizeBytes: 9,
        digest,
        recipients: all.length,
        shape: 'text',
      });
    const usual = [submit, () => answer(id, 'confirmed'), () => consume(id, digest, all)];
    const fates: (() => void)[][] = [
      [submit, () => consume(id, digest, all), () => answer(id, 'confirmed')],
      [submit, () => answer(id, 'rejected')],
      [submit, () => answer(id, 'indefinite')],
      [submit],
      [submit, () => answer(id, 'confirmed')],
      [...usual, () => consume(id, digest, all)],
      [submit, () => answer(id, 'confirmed'), () => consume(id, 'other', all)],
      [submit, () => answer(id, 'rejected'), () => consume(id, digest, all)],
      [submit, () => answer(id, 'indefinite'), () => consume(id, digest, all)],
      [submit, () => answer(id, 'confirmed'), () => consume(id, digest, [0])],
      [() => consume(id, digest, all)],
      [() => void deliver(null, digest, all)],
      [
        submit,
        () => answer(id, 'confirmed'),
        () =>
          record({ kind: 'refused', sequence: deliver(id, digest, all), id, permanent: true, detail: '' }),
      ],
    ];
    steps.push(
      random.int(10) > 0 ? usual : (fates[random.int(fates.length - (seed % 2 === 0 ? 9 : 0))] ?? usual),
    );
  }
  const active: (() => void)[][] = [];
  while (steps.length + active.length > 0) {
    if (active.length < 8 && steps.length > 0) active.push([...(steps.shift() ?? [])]);
    const at = random.int(active.length);
    active[at]?.shift()?.();
    if (active[at]?.length === 0) active.splice(at, 1);
    if (random.int(60) > 0) continue;
    injection += 1;
    const fault = pick(...faults);
    const scope = fault === 'kill' ? 'all-processes' : fault === 'power-cut' ? 'machine' : 'none';
    record({ kind: 'at-risk', injection, confirmedUndelivered: random.int(3), inFlight: 1, inDelivery: 0 });
    const rotted = random.int(4) === 0 ? [`1-0-${random.int(250)}`] : [];
    const effect = {
      hit: random.int(5) > 0,
      scope,
      indexDamaged: random.int(4) === 0,
      failingMs: 0,
    } as const;
    record({ kind: 'fault', fault, injection, ...effect, services: ['s'], detail: 'd', rotted });
    if (random.int(2) === 0) record({ kind: 'healed', fault, injection });
    record({ kind: 'recovered', injection, tookMs: 5 });
  }
  record({ kind: 'drained', waitedMs: 9, complete: true, allowedMs: 9000, allowedBy: 'claim' });
  record({ kind: 'inspected', ok: true, problems: [], keptAside: 0 });
  record({ kind: 'run-ended', how: 'completed' });
  return events;
}

/** Removes the figures that need all messages of a producer: the places of the losses among them. */
function withoutPlaces(evaluation: Evaluation): Evaluation {
  const findings = evaluation.findings.map((finding) => {
    const figures = Object.entries(finding.figures).filter(([name]) => !name.startsWith('producersLost'));
    return { ...finding, figures: Object.fromEntries(figures) };
  });
  return { ...evaluation, findings };
}

t.test('a condensed history gives the findings of the whole one, without the places of losses', async (t) => {
  const verdicts = new Set<string>();
  for (let seed = 0; seed < 120; seed++) {
    const events = randomHistory(seed);
    const read = readWithLimits(write(events), `history-events=${Math.ceil(events.length * 0.7)}`);
    if (!read.some(({ kind }) => kind === 'uneventful')) t.fail(`seed ${seed}: it was not condensed`);
    t.equal(countEvents(read), events.length);
    const [whole, condensed] = [events, read].map((history) =>
      withoutPlaces(evaluate(history, { guarantee: GUARANTEE })),
    );
    if (JSON.stringify(whole) !== JSON.stringify(condensed)) t.same(condensed, whole, `seed ${seed}`);
    for (const { requirement, verdict } of whole?.findings ?? []) verdicts.add(`${requirement} ${verdict}`);
  }
  for (const expected of [
    'PP-1 fail',
    'PP-2 fail',
    'PP-3 fail',
    'PP-3 pass',
    'PP-4 fail',
    'PP-4 pass',
    'PP-6 fail',
  ])
    t.ok(verdicts.has(expected), expected);
});

/** Makes a history of three producers with two crashes, before which messages wait. `late` messages come last. */
function orderedHistory(late: (id: string) => boolean): HistoryEvent[] {
  const history = new HistoryBuilder().start('kill').install(1);
  const parts: string[][] = [];
  for (let part = 0; part < 12; part++) {
    const ids = Array.from({ length: 90 }, (_, n) => `1-${n % 3}-${part * 30 + Math.floor(n / 3)}`);
    const outcomeOf = (id: string) => (id.endsWith('7') ? 'indefinite' : 'confirmed');
    for (const id of ids) history.submit(id, outcomeOf(id), 1, Number(id[2]));
    if (part % 6 === 5) history.crash();
    parts.push(ids);
    for (const id of [...ids.filter((one) => !late(one)), ...ids.filter(late)]) history.deliver(id).consume();
  }
  return history.drain().events;
}

t.test('a condensed history tells whether the messages of each producer came in order', async (t) => {
  const guarantee = { ...GUARANTEE, faults: ['kill' as const], order: 'per-producer' as const };
  const cases: [string, (id: string) => boolean, string, number][] = [
    ['all in order', () => false, 'pass', 0],
    ['an indefinite message comes late', (id) => id === '1-1-37', 'pass', 0],
    ['one message comes late', (id) => id === '1-1-35', 'fail', 1],
    ['the last messages of a producer come after those of others', (id) => /^1-2-5\d$/.test(id), 'pass', 0],
    ['many come late', (id) => id.endsWith('15'), 'fail', 12],
  ];
  for (const [name, late, verdict, outOfOrder] of cases) {
    const events = orderedHistory(late);
    const read = readWithLimits(write(events), 'history-events=2500');
    t.ok(read.length < events.length && countEvents(read) === events.length, `${name}: it was condensed`);
    const [whole, condensed] = [events, read].map((history) =>
      evaluate(history, { guarantee }).findings.find(({ requirement }) => requirement === 'PP-20'),
    );
    t.match(whole, { verdict, figures: { outOfOrder } }, name);
    t.match(condensed, { verdict, figures: { outOfOrder, compared: whole?.figures.compared } }, name);
    t.same(
      condensed?.violations.map(({ id }) => id),
      whole?.violations.map(({ id }) => id),
    );
  }
});

/** Makes a history of a cluster with partitions. `byMinority` messages are confirmed by the isolated node. */
function clusterHistory(byMinority: number, silent: boolean): HistoryEvent[] {
  const history = new HistoryBuilder().startOver('nats', 'partition').install(1, ['a', 'b', 'c']);
  let number = 0;
  const submit = (node: string, outcome: 'confirmed' | 'indefinite') => {
    const id = `1-0-${number++}`;
    history.submitTo(node, id, outcome);
    if (outcome === 'confirmed') history.deliver(id, { node }).consume();
  };
  for (let injection = 0; injection < 6; injection++) {
    for (let n = 0; n < 60; n++) submit('b', 'confirmed');
    history.state(['a-b', 'a-c']);
    // It is confirmed before the cut is complete.
    submit('b', 'confirmed');
    history.state(['a-b', 'a-c']).advance(4000);
    for (let n = 0; n < 20; n++) submit('a', n < byMinority ? 'confirmed' : 'indefinite');
    for (let n = 0; n < 30; n++) {
      if (silent) history.advance(1000);
      submit(n % 2 === 0 ? 'b' : 'c', silent ? 'indefinite' : 'confirmed');
    }
    history.advance(4000).state();
    for (let n = 0; n < 60; n++) submit('c', 'confirmed');
    history.fault({ fault: 'partition', scope: 'none', nodes: ['a'] }).recover();
  }
  return history.drain().events;
}

t.test('a condensed history of a cluster tells what its nodes answered while links were cut', async (t) => {
  const guarantee: Guarantee = {
    ...{ faults: ['kill', 'partition'], duplicatesPerCrash: 0 },
    cluster: { tolerates: 1, electionSeconds: 10 },
  };
  const cases: [string, HistoryEvent[], Record<string, string>][] = [
    ['the majority goes on', clusterHistory(0, false), { 'PP-23': 'pass', 'PP-24': 'pass' }],
    ['a minority confirms', clusterHistory(2, false), { 'PP-23': 'fail', 'PP-24': 'pass' }],
    ['nothing goes on', clusterHistory(0, true), { 'PP-23': 'pass', 'PP-24': 'fail' }],
  ];
  for (const [name, events, verdicts] of cases) {
    const read = readWithLimits(write(events), 'history-events=3500');
    t.ok(
      read.length < 1000 && countEvents(read) === events.length,
      `${name}: ${read.length} events are kept`,
    );
    for (const [id, verdict] of Object.entries(verdicts)) {
      const [whole, condensed] = [events, read].map((history) =>
        evaluate(history, { guarantee }).findings.find(({ requirement }) => requirement === id),
      );
      t.equal(whole?.verdict, verdict, `${name}: ${id}`);
      t.same(condensed, whole, `${name}: ${id}`);
    }
  }
});

t.test('few messages are kept because of an order that the target may not claim', async (t) => {
  const events = orderedHistory((id) => /[02468]$/.test(id));
  const read = readWithLimits(write(events), 'history-events=2500');
  t.ok(read.length < 1000, `${read.length} of ${events.length} events`);
  t.equal(countEvents(read), events.length);
});

t.test('a history in which too many messages need judgement is refused in one line', async (t) => {
  const file = write(randomHistory(1));
  t.throws(() => readWithLimits(file, 'history-events=50'), {
    code: 'bad-history',
    exitCode: 2,
    message: /: has more than 50 events .*PLUGPULL_LIMITS=history-events=N/,
  });
});

t.test('a history of an exploration is never condensed: its states count the submits', async (t) => {
  const events = randomHistory(3);
  events.push({ kind: 'log-position', atMs: 1, id: '1-0-1', what: 'confirmed', entries: 1 });
  t.throws(() => readWithLimits(write(events), `history-events=${events.length - 1}`), /more than/);
  t.same(readWithLimits(write(events), `history-events=${events.length}`), events);
});

t.test('lines and texts beyond their limits are refused with their place', async (t) => {
  const file = write(randomHistory(1));
  t.throws(() => readWithLimits(file, 'history-line-bytes=90'), {
    code: 'bad-history',
    message: /:1: expected a whole line, it has more than 90 bytes/,
  });
  t.throws(
    () => readWithLimits(file, 'history-bytes=1000'),
    /expected a history: it has more than 1000 bytes/,
  );
  const deep = join(dir, 'deep.jsonl');
  writeFileSync(deep, `${'['.repeat(100_000)}\n`);
  t.throws(() => readHistory(deep), /deep.jsonl:1: expected JSON: it has more than 100 levels/);
});

t.test('a packed history is unpacked in parts, also one that was packed as a whole', async (t) => {
  const events = Array.from({ length: 12 }, (_, seed) => randomHistory(seed)).flat();
  const plain = write(events);
  const packed = join(dir, 'packed.gz');
  packFile(plain, packed);
  t.ok(gunzipSync(readFileSync(packed)).equals(readFileSync(plain)), 'every gunzip unpacks it');
  t.same(readPackedHistory(packed, 'packed'), events);
  const whole = join(dir, 'whole.gz');
  writeFileSync(whole, gzipSync(readFileSync(plain)));
  t.same(readPackedHistory(whole, 'packed'), events);
  writeFileSync(whole, gzipSync(readFileSync(plain)).subarray(0, -1000));
  t.throws(() => readPackedHistory(whole, 'name.gz'), {
    code: 'bad-history',
    message: /^name.gz: .*unexpected end/,
  });
});

t.test('a small file that unpacks to very much is refused', async (t) => {
  const bomb = join(dir, 'bomb.gz');
  const line = { kind: 'answered', atMs: 1, id: '1', outcome: 'confirmed', detail: 'x'.repeat(10_000) };
  const part = gzipSync(Buffer.from(`${JSON.stringify(line)}\n`.repeat(100)));
  writeFileSync(bomb, Buffer.concat(Array.from({ length: 80 }, () => part)));
  t.throws(() => readWithLimits(bomb, 'history-ratio=20', readPackedHistory), {
    code: 'bad-history',
    message: /^packed: expected a history packed by gzip: it unpacks to more than 20 times its size/,
  });
});
