import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import t from 'tap';
import { CHECKERS } from '../checkers/evaluate.js';
import { FAULT_NAMES } from '../target-file/definition.js';
import { TARGET_SCHEMA } from '../targets/reference.js';
import { familyOf, REQUIREMENT_IDS, REQUIREMENTS } from './requirements.js';
import { specText } from './spec-text.js';

const SPEC = join(dirname(TARGET_SCHEMA), '../SPEC.md');

t.test('SPEC.md equals the text that the requirements generate', async (t) => {
  if (process.env.PLUGPULL_WRITE_SPEC) writeFileSync(SPEC, specText());
  t.equal(readFileSync(SPEC, 'utf8'), specText());
});

t.test(
  'every requirement has its own number, a checker, and one sentence with an RFC 2119 keyword',
  async (t) => {
    t.same(
      REQUIREMENTS.map(({ id }) => id),
      [...REQUIREMENT_IDS],
    );
    for (const { id, sentence, why, source, scenarios, evidence, notEvidence } of REQUIREMENTS) {
      t.type(CHECKERS[id], 'function');
      t.match(sentence, /MUST/);
      t.equal(sentence.match(/\./g)?.length, 1, sentence);
      t.ok(why && source && scenarios && evidence && notEvidence);
    }
  },
);

t.test('the family of a fault follows from its name', async (t) => {
  const family = (name: string) => familyOf(name, FAULT_NAMES);
  t.same(['kill', 'kill-syscall', 'kill-recovery', 'disk-full', 'full', 'index-loss', 'other'].map(family), [
    'kill',
    'kill',
    'kill',
    'full',
    'full',
    'index-loss',
    undefined,
  ]);
});
