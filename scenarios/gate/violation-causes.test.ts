import t from 'tap';
import { evaluate } from '../../conformance/checkers/evaluate.js';
import { EMPTIED_FILE, HistoryBuilder } from '../../conformance/fixtures/history-builder.js';
import { findFault } from '../../faults/catalogue/catalogue.js';
import type { Fault } from '../../faults/fault.js';
import { inProcessTarget } from '../fixtures/in-process-runtime.js';
import { TestWorkspace } from '../fixtures/kit.js';
import { PhaseClock } from '../host/phase-clock.js';
import { resultOf } from './result.js';
import { violationCauses } from './violation-causes.js';
import { violationStory } from './violation-story.js';

const CLAIMS = { guarantee: { faults: ['kill' as const], duplicatesPerCrash: 0 } } as Parameters<
  typeof evaluate
>[1];
const HUNG_UP = 'the producer hung up on purpose, in-data';

/** Adds a message that is delivered in part after a kill. */
function addPart(history: HistoryBuilder, id: string, sequence: number, detail: string): HistoryBuilder {
  return history
    .submit(id, 'none')
    .append({ kind: 'answered', id, outcome: 'indefinite', detail })
    .crash()
    .append({ kind: 'delivered', sequence, id, sizeBytes: 5, digest: 'part', recipients: [0] })
    .append({ kind: 'consumed', sequence, id, how: 'answered' });
}

t.test(
  'a part of a message whose producer hung up is named with its fix, and violates PP-5 only',
  async (t) => {
    const history = new HistoryBuilder().startOver('http', 'kill');
    addPart(addPart(history, '1', 1, HUNG_UP), '2', 2, HUNG_UP)
      .crash()
      .drain();
    const evaluation = evaluate(history.events, CLAIMS);
    const causes = violationCauses(history.events, [], evaluation);
    t.match(causes, [{ kind: 'stored-in-part', requirements: ['PP-5'], messages: ['1', '2'] }]);
    t.equal(
      causes[0]?.sentence,
      'the target stored and delivered a part of message 1, whose producer hung up while it sent it: 5 of 10 bytes; 2 such messages were delivered in part',
    );
    t.match(
      causes[0]?.fix,
      /^store a message only when all of its bytes have come \(compare .* content-length\)/,
    );
    const story = violationStory(history.events, evaluation);
    t.match(
      story.join('\n'),
      /message 1 submitted.*hung up on purpose.*delivered, as delivery 1\n {13}PP-5: /s,
    );
    t.notMatch(story.join('\n'), /kill/, 'no crash explains it');
  },
);

t.test('a part of a message whose connection a crash broke has no such cause', async (t) => {
  const history = addPart(new HistoryBuilder().startOver('http', 'kill'), '1', 1, 'connection reset').drain();
  const evaluation = evaluate(history.events, CLAIMS);
  t.equal(evaluation.findings.find(({ requirement }) => requirement === 'PP-5')?.verdict, 'fail');
  t.same(violationCauses(history.events, [], evaluation), []);
});

t.test('a gate tells the story of the message that its first cause names', async (t) => {
  const place = new TestWorkspace();
  t.teardown(() => place.remove());
  const cut = { fault: 'kill', scope: 'machine' as const };
  const { events } = new HistoryBuilder()
    .start('kill')
    .submit('1')
    .crash({ ...cut, lostFiles: [{ ...EMPTIED_FILE, file: 'one.log' }] })
    .submit('2')
    .submit('3')
    .crash({ ...cut, lostFiles: [{ ...EMPTIED_FILE, messages: ['2', '3'] }] })
    .drain();
  const result = resultOf({
    ...{ target: inProcessTarget(place), power: 'flakey', events, rounds: 1, seed: 1 },
    selection: { faults: [findFault('kill') as Fault], unavailable: [] },
    ...{ time: new PhaseClock('workload').report(), replay: '', evidence: null, bundle: null },
  });
  t.match(result.causes[0], /2 confirmed messages, such as 2, /);
  t.match(result.story[0], { kind: 'submitted', id: '2' });
  t.match(result.violations[0], { id: '2' }, 'it is the first one that is listed');
});
