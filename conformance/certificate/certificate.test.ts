import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import t from 'tap';
import { KitError } from '../errors.js';
import { certified, goodClusterRun, goodRun } from '../fixtures/certified.js';
import type { HistoryBuilder } from '../fixtures/history-builder.js';
import type { HistoryEvent } from '../history/events.js';
import { type CertificateBody, certificateOf, EXTENSION, type Statement } from './certificate.js';
import { readEvidence, sha256 } from './evidence.js';
import { FACTS_FORMAT } from './facts.js';
import { verifyCertificate } from './verify.js';

const VERSION = '1.2.3';
const KILLS = [{ fault: 'kill' }, { fault: 'kill-recovery' }] as const;

function made(t: { teardown(remove: () => void): void }, ...args: Parameters<typeof certified>) {
  const place = certified(...args);
  t.teardown(() => rmSync(dirname(place.dir), { recursive: true, force: true }));
  const statement = JSON.parse(readFileSync(place.file, 'utf8')) as Statement;
  return { ...place, statement, says: statement.predicate[EXTENSION] };
}

function filesOf(dir: string): string[] {
  return readdirSync(dir, { recursive: true })
    .map((name) => join(dir, `${name}`))
    .filter((path) => statSync(path).isFile());
}

const grant = ({ levels }: CertificateBody, level: string) => levels.find((one) => one.level === level);

t.test('a certificate is an in-toto statement about the target, and verifies as it is', async (t) => {
  const { file, statement, says } = made(t, { process: goodRun(...KILLS).events });
  t.equal(statement._type, 'https://in-toto.io/Statement/v1');
  t.equal(statement.predicateType, 'https://in-toto.io/attestation/test-result/v0.1');
  t.equal(statement.predicate.result, 'PASSED');
  t.same(
    statement.subject.map(({ name }) => name),
    ['small', 'evidence/target/queue.sh', 'evidence/target/target.json', 'sh'],
  );
  t.same(says.granted, ['process']);
  t.match(says.requirements[0], {
    id: 'PP-1',
    verdict: 'pass',
    faultsThatHit: { kill: 1, 'kill-recovery': 1 },
    atRiskAtCrashes: [1, 1],
    seeds: [1],
  });
  t.match(verifyCertificate(file, VERSION), { ok: true, problems: [] });
});

t.test('the warnings of the runs are in the certificate', async (t) => {
  const { dir, says } = made(t, { process: goodRun(...KILLS).events });
  t.notOk('warnings' in says);
  const facts = join(dir, 'evidence/facts.json');
  const warnings = ['small writes /x/queue.db outside {data}'];
  writeFileSync(facts, JSON.stringify({ ...JSON.parse(readFileSync(facts, 'utf8')), warnings }));
  t.same(certificateOf(readEvidence(dir)).predicate[EXTENSION].warnings, warnings);
});

t.test('a changed bit anywhere in the certificate, a history or the target copy is detected', async (t) => {
  const { dir, file } = made(t, { process: goodRun(...KILLS).events });
  const files = filesOf(dir);
  t.equal(files.length, 5);
  const place = fc.record({ file: fc.constantFrom(...files), at: fc.nat(), bit: fc.nat(7) });
  fc.assert(
    fc.property(place, ({ file: changed, at, bit }) => {
      const before = readFileSync(changed);
      const after = Buffer.from(before);
      const index = at % after.length;
      after[index] = (after[index] ?? 0) ^ (1 << bit);
      writeFileSync(changed, after);
      try {
        const { ok, problems } = verifyCertificate(file, VERSION);
        return !ok && problems.length > 0 && problems.every((problem) => !problem.includes('\n'));
      } finally {
        writeFileSync(changed, before);
      }
    }),
    { numRuns: 400 },
  );
  t.ok(verifyCertificate(file, VERSION).ok, 'the unchanged certificate still verifies');
});

t.test('a missing, added or truncated file of the evidence is detected', async (t) => {
  const { dir, file } = made(t, { process: goodRun(...KILLS).events });
  const history = join(dir, 'evidence/process.history.jsonl.gz');
  const bytes = readFileSync(history);
  const fails = (why: RegExp) => t.match(verifyCertificate(file, VERSION), { ok: false, problems: [why] });
  renameSync(history, `${history}.away`);
  fails(/process\.history.*missing/);
  renameSync(`${history}.away`, history);
  writeFileSync(join(dir, 'evidence/target/more'), '');
  fails(/more: it is not certified/);
  rmSync(join(dir, 'evidence/target/more'));
  writeFileSync(history, bytes.subarray(0, bytes.length - 9));
  fails(/process\.history.*changed/);
  writeFileSync(history, bytes);
  writeFileSync(file, 'no certificate at all');
  fails(/certificate\.json:1:1 is not what the evidence gives/);
});

t.test(
  'a certificate that claims more than its evidence is detected although its digests are right',
  async (t) => {
    const { file } = made(t, { process: goodRun({ fault: 'kill' }).events });
    const text = readFileSync(file, 'utf8');
    writeFileSync(file, text.replace('"granted": []', '"granted": ["process"]'));
    t.match(verifyCertificate(file, VERSION), { ok: false, problems: [/certificate\.json:\d+:\d+/] });
  },
);

t.test('evidence of another format is refused in one line, and not called changed', async (t) => {
  for (const format of [undefined, FACTS_FORMAT + 1]) {
    const { dir, file } = made(t, { process: goodRun(...KILLS).events });
    const factsFile = join(dir, 'evidence/facts.json');
    const before = readFileSync(factsFile);
    const after = JSON.stringify({ ...JSON.parse(before.toString()), format });
    writeFileSync(factsFile, after);
    t.match(verifyCertificate(file, VERSION).problems, [/facts\.json: it was changed/], 'as its digest says');
    // An earlier kit certified the facts as they are.
    writeFileSync(file, readFileSync(file, 'utf8').replaceAll(sha256(before), sha256(after)));
    t.throws(() => verifyCertificate(file, VERSION), {
      exitCode: 2,
      message: new RegExp(
        `^\\S+facts\\.json: has version ${format ?? 1} of the format, expected ${FACTS_FORMAT}: use the kit that made it$`,
      ),
    });
  }
});

t.test('a file that is not a certificate, or has no evidence beside it, is bad usage', async (t) => {
  const { dir, file } = made(t, { process: goodRun(...KILLS).events });
  const alone = join(dirname(dir), 'certificate.json');
  writeFileSync(alone, readFileSync(file));
  const nonsense = join(dirname(dir), 'nonsense');
  writeFileSync(nonsense, '\u0000{{');
  const cases: [string, RegExp][] = [
    [alone, /expected the folder evidence/],
    [nonsense, /expected a certificate/],
    [join(dir, 'missing'), /expected a certificate/],
    [dir, /expected a certificate/],
  ];
  for (const [path, expected] of cases) {
    try {
      verifyCertificate(path, VERSION);
      t.fail(path);
    } catch (error) {
      t.ok(error instanceof KitError && error.exitCode === 2);
      t.match((error as Error).message, expected);
    }
  }
});

t.test('a certificate of another version of the kit verifies if the text is the same', async (t) => {
  const { file } = made(t, { process: goodRun(...KILLS).events });
  t.ok(verifyCertificate(file, '9.9.9').ok, 'the same text verifies');
});

t.test(
  'a level is granted only if each of its requirements was measured with messages at risk',
  async (t) => {
    const all = goodRun(...KILLS).events;
    const cases: [string, readonly (typeof all)[number][], RegExp][] = [
      ['no interrupted recovery', goodRun({ fault: 'kill' }).events, /PP-15 was not measured/],
      [
        'nothing at risk',
        goodRun({ fault: 'kill', atRisk: 0 }, { fault: 'kill-recovery', atRisk: 0 }).events,
        /nothing was at risk/,
      ],
      [
        'every fault a miss',
        goodRun({ hit: false }, { fault: 'kill-recovery', hit: false }).events,
        /kill did not hit/,
      ],
      [
        'nothing indefinite',
        all.filter((event) => !('id' in event && event.id === 'i')),
        /PP-5 was not measured/,
      ],
      [
        'a loss',
        goodRun(...KILLS)
          .submit('lost')
          .drain().events,
        /PP-1: 1 of/,
      ],
    ];
    for (const [name, history, why] of cases) {
      const { says } = made(t, { process: history });
      t.match(grant(says, 'process'), { granted: false, why }, name);
      t.same(says.granted, []);
    }
  },
);

t.test('a level needs its required levels, a claim of its faults, and its own run', async (t) => {
  const torn = goodRun(
    { fault: 'tear', scope: 'machine' },
    { fault: 'index-loss', indexDamaged: true },
  ).events;
  const faults = ['kill', 'tear', 'index-loss'] as const;
  const both = made(t, { process: goodRun(...KILLS).events, torn }, faults).says;
  t.same(both.granted, ['process', 'torn']);
  t.same(grant(both, 'torn')?.without, ['PP-9'], 'the grant names unclaimed requirements');
  t.match(grant(both, 'power'), { granted: false, why: /does not claim to survive power-cut/ });
  t.match(grant(made(t, { torn }, faults).says, 'torn'), { granted: false, why: /needs the level process/ });
  const without = made(t, { process: goodRun(...KILLS).events }, faults).says;
  t.match(grant(without, 'torn'), { granted: false, why: /none of its faults could be tried/ });
  t.equal(without.verdict, 'not-measured');
});

t.test(
  'the level cluster is granted when each of its claimed requirements was measured and passed',
  async (t) => {
    const nodes = ['a', 'b', 'c'];
    const faults = ['kill', 'partition', 'cut-then-elect', 'node-loss'] as const;
    const asCluster = (events: readonly HistoryEvent[]): HistoryEvent[] =>
      events.map((event) => (event.kind === 'answered' ? { ...event, node: event.node ?? 'a' } : event));
    const process = asCluster(goodRun(...KILLS).events);
    const cluster = asCluster(
      goodClusterRun().submit('i', 'indefinite').deliver('i').consume().drain().events,
    );
    const { says, file } = made(t, { process, cluster }, faults, {}, nodes);
    t.same(says.granted, ['process', 'cluster'], `${grant(says, 'cluster')?.why}`);
    t.same(verifyCertificate(file, VERSION).problems, []);
    t.same(grant(says, 'cluster')?.without, ['stale-link', 'link-delay', 'link-loss', 'power-cut']);
    const requirement = (body: CertificateBody, id: string) => body.requirements.find((one) => one.id === id);
    for (const id of ['PP-21', 'PP-22', 'PP-23', 'PP-24'])
      t.match(requirement(says, id), { level: 'cluster', verdict: 'pass', runs: ['cluster'] }, id);

    const withoutDisks = made(
      t,
      { process, cluster },
      ['kill', 'partition', 'cut-then-elect'],
      {},
      nodes,
    ).says;
    t.same(withoutDisks.granted, ['process', 'cluster'], 'PP-22 is not claimed');
    t.ok(
      withoutDisks.unclaimed.includes('PP-22') && grant(withoutDisks, 'cluster')?.without.includes('PP-22'),
    );

    const lost = cluster.filter(
      (event) =>
        !('id' in event && event.id === '4' && event.kind !== 'submitted' && event.kind !== 'answered'),
    );
    const red = made(t, { process, cluster: renumbered(lost) }, faults, {}, nodes).says;
    t.match(grant(red, 'cluster'), { granted: false, why: /PP-1: 1 of/ });
    t.match(requirement(red, 'PP-21'), { verdict: 'fail' });

    const silent = cluster.filter(({ kind }) => kind !== 'cluster-state');
    const unmeasured = made(t, { process, cluster: silent }, faults, {}, nodes).says;
    t.match(grant(unmeasured, 'cluster'), { granted: false, why: /PP-24 was not measured/ });

    const single = made(t, { process: goodRun(...KILLS).events }).says;
    t.match(grant(single, 'cluster'), { granted: false, why: 'the target has no nodes', without: [] });
  },
);

/** Gives the deliveries numbers without a gap. */
function renumbered(events: readonly HistoryEvent[]): HistoryEvent[] {
  let sequence = 0;
  return events.map((event) => {
    if (event.kind === 'delivered') sequence += 1;
    return event.kind === 'delivered' || event.kind === 'consumed' ? { ...event, sequence } : event;
  });
}

t.test('a requirement whose faults could not be tried is not measured, with the reason', async (t) => {
  const faults = ['kill', 'tear', 'index-loss'] as const;
  const { says } = made(t, { process: goodRun(...KILLS).events }, faults, { torn: 'not on this machine' });
  t.match(grant(says, 'torn'), {
    granted: false,
    why: 'none of its faults could be tried: not on this machine',
  });
  for (const { level, verdict, why } of says.requirements) {
    if (verdict !== 'pass' && level === 'torn') t.equal(why, 'not on this machine');
  }
  t.match(
    says.requirements.find(({ id }) => id === 'PP-16'),
    { verdict: 'not-measured', why: 'not on this machine' },
  );
});

t.test('a granted level stays granted when another level fails', async (t) => {
  const torn = goodRun({ fault: 'tear', scope: 'machine' }).submit('lost').crash({ fault: 'tear' }).drain();
  const { says } = made(t, { process: goodRun(...KILLS).events, torn: torn.events }, ['kill', 'tear']);
  t.same(says.granted, ['process']);
  t.equal(says.verdict, 'fail');
  t.match(
    says.requirements.find(({ id }) => id === 'PP-16'),
    { verdict: 'fail', runs: ['torn'] },
  );
});

t.test('power is not granted on cuts that missed, however many messages were at risk', async (t) => {
  const cut = { fault: 'power-cut', scope: 'machine', atRisk: 7790 } as const;
  const granted = (hit: boolean) => {
    const process = goodRun(...KILLS).events;
    const power = goodRun({ ...cut, hit }, { ...cut, hit }).events;
    const { says } = made(t, { process, power }, ['kill', 'power-cut']);
    return { says, power: grant(says, 'power') };
  };
  t.match(granted(true).power, { granted: true }, 'the cuts that hit grant it');
  const missed = granted(false);
  t.match(missed.power, { granted: false, why: 'power-cut did not hit' });
  t.not(missed.says.verdict, 'pass');
  t.match(
    missed.says.requirements.find(({ id }) => id === 'PP-12'),
    { verdict: 'not-measured', why: 'no power cut hit' },
  );
});

t.test('a certificate or evidence beyond the limits is refused in one line, with exit code 2', async (t) => {
  const { dir, file } = made(t, { process: goodRun(...KILLS).events });
  t.teardown(() => {
    delete process.env.PLUGPULL_LIMITS;
  });
  const refused = (limits: string, message: RegExp) => {
    process.env.PLUGPULL_LIMITS = limits;
    t.throws(() => verifyCertificate(file, VERSION), { exitCode: 2, message }, limits);
  };
  refused(
    'evidence-files=3',
    /^evidence\/: has more than 3 files \(PLUGPULL_LIMITS=evidence-files=N allows more\)$/,
  );
  refused('evidence-bytes=500', /^evidence\/: has more than 500 bytes/);
  refused('json-bytes=500', /expected a certificate: it has \d+ bytes, more than 500$/);
  refused('json-values=20', /expected a certificate: it has more than 20 values/);
  refused(
    'history-line-bytes=50',
    /process.history.jsonl.gz:1: expected a whole line, it has more than 50 bytes/,
  );
  refused('history-bytes=100', /expected a history packed by gzip: it has more than 100 bytes/);
  refused('history-events=3', /process.history.jsonl.gz: has more than 3 events that/);
  refused('json-depth=2', /expected a certificate: it has more than 2 levels/);
  delete process.env.PLUGPULL_LIMITS;
  const facts = join(dir, 'evidence/facts.json');
  writeFileSync(facts, '['.repeat(1 << 20));
  // The digest says that it was changed, and nothing more is read of it.
  t.match(verifyCertificate(file, VERSION), { ok: false, problems: [/facts.json: it was changed/] });
  t.throws(() => readEvidence(dir), { exitCode: 2, message: /facts.json: .*more than 100 levels/ });
  writeFileSync(file, '['.repeat(1 << 20));
  t.throws(() => verifyCertificate(file, VERSION), { exitCode: 2, message: /more than 100 levels/ });
});

t.test('a history that is too long for memory is checked like a short one', async (t) => {
  t.teardown(() => {
    delete process.env.PLUGPULL_LIMITS;
  });
  const long = (change: (history: HistoryBuilder) => unknown = () => undefined, atRisk = 1) => {
    const history = goodRun(...KILLS);
    // The builder ends the run of `goodRun` with the wait for the last messages, which goes on here.
    history.events.pop();
    for (let n = 0; n < 40; n++) {
      const outcome = n % 9 === 8 ? 'rejected' : 'confirmed';
      history.submit(`m${n}`, outcome);
      if (n % 10 === 4) history.crash({ atRisk }).inspect(true);
      if (outcome === 'confirmed') history.deliver(`m${n}`).consume();
      if (n === 30) change(history);
    }
    return made(t, { process: history.drain().events });
  };
  const cases: [string, ReturnType<typeof long>, RegExp | undefined][] = [
    ['honest', long(), undefined],
    ['more at risk', long(undefined, 2), /: 2 messages at risk at injection 3, and 1 were confirmed/],
    [
      'a missing delivery',
      // The number of the delivery is that of a later one, and nothing else is wrong with the message.
      long((history) => {
        for (const event of history.submit('x').deliver('x').consume().events.slice(-2))
          if ('sequence' in event) event.sequence += 1000;
      }),
      /: delivery 10\d\d came after delivery \d\d$/,
    ],
    [
      'time that runs backwards',
      long((history) => {
        const last = history.events.at(-1);
        if (last) last.atMs = 1;
      }),
      /: consumed at 1 ms, after an event at \d+ ms/,
    ],
  ];
  for (const [what, { dir, file }, problem] of cases) {
    delete process.env.PLUGPULL_LIMITS;
    const inMemory = verifyCertificate(file, VERSION);
    if (problem === undefined) t.same(inMemory.problems, [], what);
    else t.match(inMemory.problems[0], problem, what);
    process.env.PLUGPULL_LIMITS = 'history-events=60';
    const kinds = readEvidence(dir).histories.flatMap(({ events }) => events.map(({ kind }) => kind));
    t.ok(kinds.includes('uneventful'), `${what}: it was condensed`);
    t.same(verifyCertificate(file, VERSION), inMemory, what);
  }
});

t.test('a history that leaves more messages open than fit in memory is refused in one line', async (t) => {
  const history = goodRun(...KILLS);
  history.events.pop();
  for (let n = 0; n < 30; n++) history.submit(`m${n}`);
  for (let n = 0; n < 30; n++) history.deliver(`m${n}`).consume();
  const { file } = made(t, { process: history.drain().events });
  t.teardown(() => {
    delete process.env.PLUGPULL_LIMITS;
  });
  t.ok(verifyCertificate(file, VERSION).ok);
  process.env.PLUGPULL_LIMITS = 'history-events=29';
  t.throws(() => verifyCertificate(file, VERSION), {
    exitCode: 2,
    message: /:\d+: there are more than 29 messages or deliveries that are open at the same time \(PLUGPULL/,
  });
});
