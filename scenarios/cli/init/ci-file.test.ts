import t from 'tap';
import { parse } from 'yaml';
import type { Answers } from './answers.js';
import { ciFile, ciNotes } from './ci-file.js';

const ANSWERS: Answers = {
  name: 'mine',
  protocol: 'http',
  language: 'rust',
  services: 'one',
  ci: 'github',
};

/** Folders that need quotes in one of the formats. */
const FOLDERS = ['', 'queues/mine', "it's: a #folder"];

const textFor = (ci: Answers['ci'], folder: string) => ciFile({ ...ANSWERS, ci }, folder)?.text ?? '';

interface Step {
  run?: string;
  uses?: string;
}

t.test('the GitHub workflow is valid YAML and runs check and gate in the right folder', async (t) => {
  for (const folder of FOLDERS) {
    const { jobs } = parse(textFor('github', folder)) as {
      jobs: { gate: { steps: Step[]; defaults?: { run: Record<string, string> } } };
    };
    t.equal(jobs.gate.defaults?.run['working-directory'], folder === '' ? undefined : folder);
    const { steps } = jobs.gate;
    t.ok(steps.every(({ run, uses }) => typeof (run ?? uses) === 'string'));
    for (const command of ['check', 'gate'])
      t.ok(
        steps.some(({ run }) => run?.includes(`npx plugpull ${command} ./mine.json`)),
        command,
      );
  }
});

t.test(
  'the GitLab pipeline is valid YAML: lists of texts, with the report in the right folder',
  async (t) => {
    for (const folder of FOLDERS) {
      const { plugpull } = parse(textFor('gitlab', folder)) as {
        plugpull: { script: string[]; before_script: string[]; artifacts: { reports: { junit: string } } };
      };
      t.ok([...plugpull.script, ...plugpull.before_script].every((line) => typeof line === 'string'));
      t.match(plugpull.before_script[0], / rustc$/);
      t.match(plugpull.script.at(-1), /^npx plugpull gate \.\/mine\.json .*junit:report\.xml$/);
      t.equal(plugpull.artifacts.reports.junit, folder === '' ? 'report.xml' : `${folder}/report.xml`);
    }
  },
);

t.test('in the Jenkinsfile every brace and every quotation mark is closed', async (t) => {
  for (const folder of FOLDERS) {
    const code = textFor('jenkins', folder).replaceAll(/^\s*\/\/.*$/gm, '');
    const withoutTexts = code.replaceAll(/'(?:[^'\\\n]|\\.)*'/g, '');
    t.notMatch(withoutTexts, /'/, 'no text is open');
    t.equal(withoutTexts.split('{').length, withoutTexts.split('}').length);
    t.match(code, /sh 'npx plugpull gate \.\/mine\.json /);
  }
});

t.test('without a CI system there is no file', async (t) => {
  t.equal(ciFile({ ...ANSWERS, ci: 'none' }, ''), undefined);
});

t.test('each CI file and the notes on it say that PLUGPULL must be set', async (t) => {
  for (const ci of ['github', 'gitlab', 'jenkins'] as const) {
    const lines = textFor(ci, '').split('\n');
    const at = lines.findIndex((line) => /^ *PLUGPULL\b.*plugpull@\d/.test(line));
    t.match(lines[at - 1], /^ *(?:#|\/\/) CHANGE THIS /, ci);
    t.match(ciNotes(ci, 'ci/file.yml')[0], /^set PLUGPULL in ci\/file\.yml to /, ci);
  }
  t.same(ciNotes('none', ''), []);
});
