import assert from 'node:assert';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import { create } from 'xmlbuilder2';
import { KitError } from '../../../conformance/errors.js';
import { actingIn, foreignText } from '../../fixtures/foreign-text.js';
import type { Outcome } from '../outcome.js';
import { plainStyle } from '../style.js';
import { github } from './github.js';
import { junit } from './junit.js';
import { chooseReporters, reportResult, writeReports } from './registry.js';
import { tap } from './tap.js';

const dir = mkdtempSync(join(tmpdir(), 'plugpull-reporters-'));
t.teardown(() => rmSync(dir, { recursive: true, force: true }));

const NASTY = 'it said <b>"no" & #1\u0000\u0007</b> % ::error::';

function outcome(verdict: Outcome['verdict'] = 'fail'): Outcome {
  const one = { level: 'process', violations: [] };
  return {
    command: 'gate',
    target: 'my-queue',
    file: 'my-queue.json',
    verdict,
    why: 'PP-2: came again',
    requirements: [
      { ...one, id: 'PP-1', title: 'not lost', verdict: 'pass', why: 'all came' },
      {
        ...one,
        id: 'PP-2',
        title: 'bounded',
        verdict: 'fail',
        why: 'came again',
        violations: [NASTY, 'message 7: b'],
      },
      { ...one, id: 'PP-3', title: 'no is no', verdict: 'not-measured', why: `no #rejects ${NASTY}` },
    ],
    tookMs: 1234,
    properties: { seed: '7', replay: "plugpull gate 'a b.json'" },
    data: { verdict },
    lines: () => ['first line', 'second line'],
  };
}

t.test('junit is XML that parses, with a case for each requirement', async (t) => {
  const text = await junit.render(outcome(), plainStyle);
  const { testsuites } = create(text).toObject() as unknown as {
    testsuites: { testsuite: Record<string, unknown> & { testcase: Record<string, unknown>[] } };
  };
  const { testsuite } = testsuites;
  t.match(testsuite, {
    '@name': 'my-queue',
    '@tests': '3',
    '@failures': '1',
    '@skipped': '1',
    '@errors': '0',
  });
  t.match(testsuite.testcase[0], { '@name': 'PP-1 not lost', '@classname': 'my-queue.process' });
  t.match(testsuite.testcase[1], { failure: { '@message': 'came again', '#': /message 7: b/ } });
  t.match(testsuite.testcase[2], { skipped: { '@message': /not measured: no #rejects it said &lt;b&gt;/ } });
  t.notMatch(text, '\u0000');
});

t.test('a run that was not measured fails in junit and tap, although no requirement failed', async (t) => {
  t.match(await junit.render(outcome('not-measured'), plainStyle), /errors="1"[\s\S]*<error message="PP-2/);
  t.match(await tap.render(outcome('not-measured'), plainStyle), /not ok 4 - the run measured/);
});

t.test('tap has a plan, a test point per requirement, and skips with their reason', async (t) => {
  const lines = `${await tap.render(outcome(), plainStyle)}`.split('\n');
  t.equal(lines[0], 'TAP version 14');
  t.equal(lines[1], '1..3');
  t.equal(lines[2], 'ok 1 - PP-1 not lost');
  t.equal(lines[3], 'not ok 2 - PP-2 bounded');
  t.match(lines.join('\n'), /ok 3 - PP-3 no is no # SKIP not measured: no \\#rejects/);
  const yaml = lines.find((line) => line.startsWith('  violations: ')) ?? '';
  t.same(JSON.parse(yaml.slice('  violations: '.length)), [NASTY, 'message 7: b']);
});

t.test('a reporter that fails is one warning, and the others still report', async (t) => {
  const [junitFile, tapFile, jsonFile] = ['gone/r.xml', 'r2.tap', 'r2.json'].map((name) => join(dir, name));
  const chosen = chooseReporters(
    ['github', `junit:${junitFile}`, `tap:${tapFile}`, `json:${jsonFile}`],
    false,
  );
  // This test comes before the next one, because the package keeps the path of a summary that it could open.
  // The directory goes away during the run, and the job summary never had one.
  rmSync(join(dir, 'gone'), { recursive: true });
  const before = process.env.GITHUB_STEP_SUMMARY;
  process.env.GITHUB_STEP_SUMMARY = join(dir, 'missing', 'summary.md');
  const lines: string[] = [];
  const write = process.stderr.write.bind(process.stderr);
  const stderr = t.capture(process.stderr, 'write', (...all: Parameters<typeof write>) => {
    lines.push(all[0].toString());
    return true;
  });
  const failing = { ...outcome(), lines: () => assert.fail('a report with a bug') };
  try {
    await writeReports(failing, [...chosen, ...chooseReporters(['list'], false)]);
    reportResult(() => assert.fail('a bug'), undefined);
  } finally {
    stderr.restore();
    if (before === undefined) delete process.env.GITHUB_STEP_SUMMARY;
    else process.env.GITHUB_STEP_SUMMARY = before;
  }
  t.match(lines, [
    /^warning: reporter github: not written: Unable to access summary file.*missing/,
    /^warning: reporter junit: \S+gone\/r\.xml not written: ENOENT/,
    /^warning: reporter list: not written: a report with a bug/,
    /^warning: reporter list: not written: a bug/,
  ]);
  t.equal(lines.length, 4);
  t.ok(existsSync(tapFile ?? '') && existsSync(jsonFile ?? ''), 'the others are written');
});

/** Renders for GitHub; returns what was written to stdout, and the summary of the job. */
async function renderForGithub(t: Test, reported: Outcome): Promise<{ stdout: string; summary: string }> {
  const summary = join(dir, 'summary.md');
  const before = process.env.GITHUB_STEP_SUMMARY;
  writeFileSync(summary, '');
  process.env.GITHUB_STEP_SUMMARY = summary;
  const written: string[] = [];
  // Write to stdout too, because the test itself reports there: without this its results would be lost.
  const write = process.stdout.write.bind(process.stdout);
  const results = t.capture(process.stdout, 'write', (...all: Parameters<typeof write>) => {
    written.push(all[0].toString());
    return write(...all);
  });
  try {
    t.equal(await github.render(reported, plainStyle), '');
  } finally {
    results.restore();
    if (before === undefined) delete process.env.GITHUB_STEP_SUMMARY;
    else process.env.GITHUB_STEP_SUMMARY = before;
  }
  return { stdout: written.join(''), summary: readFileSync(summary, 'utf8') };
}

t.test('github gets one annotation per line, and a summary without markup of the target', async (t) => {
  const { stdout, summary } = await renderForGithub(t, outcome());
  const lines = stdout.split('\n').filter((line) => line.startsWith('::'));
  t.equal(lines.length, 1);
  t.match(lines[0], /^::error title=my-queue%3A PP-2 bounded,file=my-queue\.json::came again%0Ait said/);
  t.match(summary, /PP-1 not lost/);
  t.match(summary, /&#60;b&#62;/);
  t.notMatch(summary, '<b>');
});

/** An outcome of which every text is foreign. */
const foreignOutcome = fc
  .record({
    texts: fc.array(foreignText, { minLength: 8, maxLength: 8 }),
    verdict: fc.constantFrom('pass', 'fail', 'not-measured' as const),
  })
  .map(({ texts, verdict }): Outcome => {
    const [target = '', file = '', why = '', reason = '', violation = '', title = '', name = '', value = ''] =
      texts;
    const one = { level: 'process', title, why: reason };
    return {
      ...outcome(verdict),
      ...{ target, file, why },
      requirements: [
        { ...one, id: 'PP-1', verdict: 'pass', violations: [] },
        { ...one, id: 'PP-2', verdict: 'fail', violations: [violation, value] },
        { ...one, id: 'PP-3', verdict: 'not-measured', violations: [] },
      ],
      properties: { seed: '7', [`p${name}`]: value },
      data: { target, [name]: [why, value] },
      lines: (style) => [style.strong(target), `${violation}: ${style.bad(why)}`],
    };
  });

t.test('no text leaves a control character or a command in the output of a reporter', async () => {
  const files = ['f.xml', 'f.tap', 'f.json', 'f.txt'].map((name) => join(dir, name));
  const [xml = '', points = '', data = '', list = ''] = files;
  const chosen = chooseReporters([`junit:${xml}`, `tap:${points}`, `json:${data}`, `list:${list}`], false);
  await fc.assert(
    fc.asyncProperty(foreignOutcome, async (reported) => {
      await writeReports(reported, chosen);
      const texts = files.map((file) => readFileSync(file, 'utf8'));
      for (const [index, text] of texts.entries()) {
        const acting = actingIn(text);
        if (acting.length > 0) throw new Error(`${files[index]}: ${JSON.stringify(acting)}`);
      }
      checkXml(texts[0] ?? '', reported);
      checkTap(texts[1] ?? '', reported);
      if (JSON.stringify(JSON.parse(texts[2] ?? '')) !== JSON.stringify(reported.data))
        throw new Error('the JSON has another value');
      if (texts[3]?.split('\n').length !== 3) throw new Error('the list has more lines than the report');
    }),
    { numRuns: 300 },
  );
});

function checkXml(text: string, reported: Outcome): void {
  const cases = reported.verdict === 'not-measured' ? 4 : 3;
  const { testsuites } = create(text).toObject() as unknown as {
    testsuites: { testsuite: { testcase: unknown[] } };
  };
  if (testsuites.testsuite.testcase.length !== cases) throw new Error('the XML has other test cases');
}

function checkTap(text: string, reported: Outcome): void {
  const extra = reported.verdict === 'not-measured' ? 1 : 0;
  const lines = text.split('\n');
  const points = lines.filter((line) => /^(not )?ok /.test(line));
  // Version, plan, points, the details of a failure (5 lines, and 3 of the extra one), comment, and the last line break.
  if (lines.length !== 2 + 3 + 5 + extra * 4 + 1 + 1) throw new Error(`${lines.length} lines`);
  if (points.length !== 3 + extra) throw new Error(`${points.length} points`);
  const directives = points.filter((line) => /(?<!\\)(\\\\)*#/.test(line));
  if (directives.length !== 1 || !directives[0]?.includes(' # SKIP not measured: '))
    throw new Error(`directives: ${JSON.stringify(directives)}`);
  if (lines.some((line) => /^(Bail out|pragma)/.test(line))) throw new Error('a foreign line');
}

t.test('no text leaves a second command or markup in the output for GitHub', async (t) => {
  const outcomes = fc.sample(foreignOutcome, { numRuns: 60, seed: 1 });
  for (const reported of outcomes) {
    const { stdout, summary } = await renderForGithub(t, reported);
    const lines = stdout.split('\n').filter((line) => line.trim() !== '');
    const expected = reported.verdict === 'not-measured' ? 2 : 1;
    // The results of the test itself are on stdout too, and none of them begins like a command.
    const commands = lines.filter((line) => /^\s*::/.test(line) || /##[a-z]*\[/i.test(line));
    t.equal(commands.length, expected);
    t.ok(commands.every((line) => line.startsWith('::error title=')));
    // A character reference has the effect of its character.
    const decoded = summary.replace(/&#(\d+);/g, (_, code) => String.fromCodePoint(Number(code)));
    t.same(actingIn(decoded.replaceAll('\ufe0f', '')), []);
    const tags = [...summary.matchAll(/<[^>]*>?/g)].map(([tag]) => tag);
    t.same(
      tags.filter((tag) => !/^<\/?(h3|table|tr|th|td|ul|li|code)>$/.test(tag)),
      [],
    );
    t.notMatch(summary.replace(/&#\d+;/g, ''), /[`|*_[\]!&"'\\]/);
  }
});

t.test(
  'each reporter writes its file; two on stdout, an unknown name or an unusable file are bad usage',
  async (t) => {
    const files = ['r.xml', 'sub/r.tap', 'r.json', 'r.txt'].map((name) => join(dir, name));
    const [xml, points, data, list] = files;
    await writeReports(
      outcome(),
      chooseReporters([`junit:${xml}`, `tap:${points}`, `json:${data}`, `list:${list}`], false),
    );
    for (const file of files) t.ok(existsSync(file), file);
    t.equal(readFileSync(list ?? '', 'utf8'), 'first line\nsecond line\n');
    t.same(JSON.parse(readFileSync(data ?? '', 'utf8')), { verdict: 'fail' });
    const bad: [string[], boolean, RegExp][] = [
      [['junit', 'tap'], false, /junit and tap would both write to stdout.*junit:report\.xml/],
      [['github'], true, /github and json/],
      [['xml'], false, /xml: expected one of list, json, junit, tap, github/],
      [['junit:'], false, /expected a file after the colon/],
      [['github:out'], false, /expected no file/],
      [[`junit:${dir}`], false, /it is a directory/],
      [[`junit:${xml}/below.xml`], false, /expected a file to write/],
      [['junit:/proc/x/y.xml'], false, /junit:\/proc\/x\/y\.xml: expected a file to write: ENOENT/],
    ];
    for (const [specs, withJson, expected] of bad) {
      try {
        chooseReporters(specs, withJson);
        t.fail(specs.join());
      } catch (error) {
        t.ok(error instanceof KitError && error.exitCode === 2, `${error}`);
        t.match((error as Error).message, expected);
      }
    }
    t.equal(chooseReporters(['json', 'list'], true).length, 2, '--json adds no second json reporter');
  },
);
