import t from 'tap';
import { type Evaluation, evaluate } from '../../conformance/checkers/evaluate.js';
import { GUARANTEE } from '../../conformance/fixtures/cases.js';
import { EMPTIED_FILE, HistoryBuilder } from '../../conformance/fixtures/history-builder.js';
import { violationCauses } from './violation-causes.js';
import { violationStory } from './violation-story.js';

const TARGET = {
  guarantee: {
    ...GUARANTEE,
    faults: ['kill' as const, 'partition' as const, 'cut-then-elect' as const, 'power-cut' as const],
    cluster: { tolerates: 1, electionSeconds: 10 },
  },
};
const ISOLATED = ['a-b', 'a-c'];
const started = () => new HistoryBuilder().startOver('nats', 'cut-then-elect').install(1, ['a', 'b', 'c']);
const withoutTimes = (lines: readonly string[]) => lines.map((line) => line.replace(/^ *\d+\.\d+ s {2}/, ''));
const failedIn = ({ findings }: Evaluation) =>
  findings.flatMap(({ requirement, verdict }) => (verdict === 'fail' ? [requirement] : []));

/** The batch that b and c confirmed without a is lost when c loses its power and elects with a. */
const lostBatch = () => {
  const history = started().submitTo('a', '1').state(ISOLATED).state(ISOLATED);
  for (const id of ['2', '3', '4']) history.submitTo('b', id);
  return history
    .state(['a-b', 'a-c', 'b-c'], ['c'])
    .state(['a-b', 'b-c'], ['c'])
    .state(['a-b', 'b-c'])
    .submitTo('a', '5')
    .state()
    .crash({
      ...{ fault: 'cut-then-elect', scope: 'machine', nodes: ['a', 'c'] },
      lostFiles: [{ ...EMPTIED_FILE, file: 'c:jetstream/1.blk', messages: ['2', '3', '4'] }],
    })
    .submitAndConsume('6')
    .deliver('1')
    .consume()
    .deliver('5')
    .consume()
    .drain().events;
};

t.test(
  'the cause of a loss in a cluster names who confirmed, what was cut, who lost it, and who confirmed next',
  async (t) => {
    const events = lostBatch();
    const evaluation = evaluate(events, TARGET);
    t.same(failedIn(evaluation), ['PP-1', 'PP-21']);
    const [cause] = violationCauses(events, [], evaluation);
    t.match(cause, { requirements: ['PP-21', 'PP-1'], messages: ['2', '3', '4'], file: 'c:jetstream/1.blk' });
    t.same(withoutTimes(cause?.facts ?? []).slice(0, 8), [
      'a is cut off from b and c',
      'message 2 is confirmed by b',
      'a is cut off from b and c; b is cut off from c; c is down',
      'b is cut off from a and c; c is down',
      'b is cut off from a and c',
      'the next majority is a and c: a confirms message 5',
      'everything is healed',
      'c lost it from jetstream/1.blk',
    ]);
    t.equal(cause?.facts.at(-1), 'producer 0 lost the last 3 of 4 (a suffix)');
  },
);

t.test(
  'the story of a message that a cluster lost has the cuts, the kill and the next majority in order',
  async (t) => {
    const events = lostBatch();
    const lines = withoutTimes(violationStory(events, evaluate(events, TARGET)));
    t.match(lines, [
      'a is cut off from b and c',
      'message 2 submitted, 10 bytes',
      'confirmed by b: confirmed',
      /c is down$/,
      /^b is cut off from a and c; c is down$/,
      /^b is cut off from a and c$/,
      'the next majority is a and c: a confirms message 5',
      'everything is healed',
      /^c lost it from jetstream/,
      /^cut-then-elect 1: /,
      /the message was in c:jetstream/,
      /PP-1: confirmed and never delivered|PP-21: confirmed by b during cut-then-elect 1, and never delivered/,
      /producer 0 lost the last 3 of 4 \(a suffix\)/,
    ]);
  },
);

t.test('a loss without a lost file at a cut of links is a history that was replaced', async (t) => {
  const { events } = started()
    .submitTo('b', '1')
    .state(ISOLATED)
    .submitTo('b', '2')
    .submitTo('c', '3')
    .state()
    .fault({ fault: 'partition', scope: 'none', nodes: ['a'] })
    .submitAndConsume('4')
    .deliver('1')
    .consume()
    .drain();
  const evaluation = evaluate(events, TARGET);
  t.same(failedIn(evaluation), ['PP-1', 'PP-23']);
  const [cause] = violationCauses(events, [], evaluation);
  t.match(cause, {
    kind: 'history-replaced',
    requirements: ['PP-23', 'PP-1'],
    sentence:
      'at partition 1 no disk lost anything, and 2 confirmed messages are gone: after the healing the nodes kept another history; b had confirmed message 2, and the next majority is b and c: c confirms message 3',
  });
});

t.test('a minority that confirmed is a cause of its own', async (t) => {
  const { events } = started()
    .submitTo('b', '1')
    .state(ISOLATED)
    .state(ISOLATED)
    .submitTo('a', '2')
    .submitTo('b', '3')
    .advance(3000)
    .state()
    .fault({ fault: 'partition', scope: 'none', nodes: ['a'] })
    .submitAndConsume('4')
    .deliver('1')
    .consume()
    .deliver('2')
    .consume()
    .deliver('3')
    .consume()
    .drain();
  const evaluation = evaluate(events, TARGET);
  t.same(failedIn(evaluation), ['PP-23']);
  const causes = violationCauses(events, [], evaluation);
  t.match(causes, [
    {
      kind: 'minority-confirmed',
      sentence: 'a confirmed message 2 although it was cut off from the majority',
      requirements: ['PP-23'],
      messages: ['2'],
    },
  ]);
  const [cause] = causes;
  t.match(withoutTimes(cause?.facts ?? []), ['a is cut off from b and c', 'message 2 is confirmed by a']);
  t.match(
    violationStory(events, evaluation).at(-1),
    /PP-23: a confirmed it although it was cut off from the majority .*split brain/,
  );
});

t.test('nodes that do not go on are a cause of their own', async (t) => {
  const history = started().submitTo('b', '0').state(ISOLATED);
  for (let n = 1; n < 15; n++) history.submit(`${n}`, 'none').advance(998).answer(`${n}`, 'rejected', 'c');
  history
    .state()
    .submitTo('b', '99')
    .fault({ fault: 'partition', scope: 'none', nodes: ['a'] });
  const { events } = history.deliver('0').consume().deliver('99').consume().drain();
  const evaluation = evaluate(events, TARGET);
  t.same(failedIn(evaluation), ['PP-24']);
  t.match(violationCauses(events, [], evaluation), [
    {
      kind: 'no-election',
      sentence:
        /^b and c confirmed nothing for \d+\.\d s \(injection 1: a is cut off from b and c; \d+ submits were not confirmed\); 10.0 s are claimed$/,
    },
  ]);
  t.match(violationStory(events, evaluation), [/^PP-24: b and c confirmed nothing/]);
});
