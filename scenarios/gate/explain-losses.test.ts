import t from 'tap';
import { evaluate } from '../../conformance/checkers/evaluate.js';
import { EMPTIED_FILE, HistoryBuilder } from '../../conformance/fixtures/history-builder.js';
import { loadTarget } from '../../conformance/target-file/load.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { explainLosses } from './explain-losses.js';
import { violationStory } from './violation-story.js';

const HABITS = [
  {
    pattern: 'base-#.log',
    writers: ['compactor'],
    syncers: [],
    renamedFrom: ['base.tmp'],
    renamers: ['compactor'],
  },
];

/** A message that survives a first cut, is lost at a second one, and is missing through a third one. */
function lostAtTheSecondCut(t: { teardown(remove: () => void): void }) {
  const workspace = new TestWorkspace();
  t.teardown(() => workspace.remove());
  const target = loadTarget(
    workspace.target(['queue', '{port}', '{data}'], {
      guarantee: { faults: ['power-cut'], duplicatesPerCrash: 0 },
    }),
  );
  const cut = { fault: 'power-cut', scope: 'machine' as const };
  const { events } = new HistoryBuilder()
    .start('power-cut')
    .submit('1')
    .crash({ ...cut, lostFiles: [{ ...EMPTIED_FILE, file: 'first', messages: [] }] })
    .crash({ ...cut, lostFiles: [EMPTIED_FILE] })
    .crash({ ...cut, lostFiles: [{ ...EMPTIED_FILE, file: 'third', messages: [] }] })
    .drain();
  return { events, evaluation: evaluate(events, target) };
}

t.test('the story of a lost message ends with the injection that took it, and names the file', async (t) => {
  const { events, evaluation } = lostAtTheSecondCut(t);
  const story = violationStory(events, evaluation);
  t.equal(story.filter((line) => line.includes('power-cut ')).length, 1, 'one injection is shown');
  t.match(story.at(-3), /power-cut 2: /);
  t.match(
    story.at(-2),
    /the message was in base-14.log: 0 bytes, was 23512; 23512 bytes were only in the page cache: no sync/,
  );
  t.match(story.at(-1), /PP-1: confirmed and never delivered$/);
});

t.test('a loss is explained by the file, its writer, its missing sync and its old name', async (t) => {
  const { events, evaluation } = lostAtTheSecondCut(t);
  t.same(explainLosses(events, evaluation, HABITS), [
    'power-cut 2 took 1 message:',
    '  base-14.log: 0 bytes, was 23512; seen under strace: written by compactor, never synced, renamed from base.tmp by compactor; 23512 bytes were only in the page cache: no sync of them had returned; 1 of the lost messages was in it',
  ]);
  t.notMatch(explainLosses(events, evaluation, []).join('\n'), /strace/);
});
