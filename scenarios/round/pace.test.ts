import t from 'tap';
import { Pace } from './pace.js';

t.test(
  'an injection is expected to take as long as earlier ones of its fault, or of the others',
  async (t) => {
    const pace = new Pace(2500);
    t.equal(pace.injectionMs('kill'), 0, 'nothing is known yet');
    pace.noteInjection('kill', 1000);
    t.equal(pace.injectionMs('kill'), 1000);
    t.equal(pace.injectionMs('tear'), 1000, 'the mean of the others');
    pace.noteInjection('tear', 5000);
    pace.noteInjection('kill', 2000);
    t.equal(pace.injectionMs('kill'), 1500, 'between the last one and the earlier ones');
    t.equal(pace.injectionMs('pause'), 3250);
  },
);

t.test('the end of a round is expected to take as long as the longest one so far', async (t) => {
  const pace = new Pace(2500);
  t.equal(pace.tailMs, 2500);
  pace.noteTail(700);
  t.equal(pace.tailMs, 700, 'the first measurement replaces the assumption');
  pace.noteTail(14_000);
  pace.noteTail(900);
  t.equal(pace.tailMs, 14_000);
});
