import t from 'tap';
import { EXPLORED_MINIMUM, whyTooFew } from './minimum.js';

const NO_FAMILIES = { prefix: 0, 'all-but-one': 0, 'only-one': 0, torn: 0, random: 0 };
const ENOUGH = {
  states: EXPLORED_MINIMUM.states,
  statesAtRisk: EXPLORED_MINIMUM.statesAtRisk,
  cuts: { judged: EXPLORED_MINIMUM.cuts, all: 4734 },
  families: { ...NO_FAMILIES, prefix: 10, torn: 5, random: 5 },
};

t.test('an exploration that has reached the minimum counts', async (t) => {
  t.equal(whyTooFew(ENOUGH, 'use a larger --budget'), undefined);
});

for (const [name, short, expected] of [
  [
    'states',
    { states: 8 },
    /^too few states for a pass: 8 crash states explored, expected at least 20 \(use more\)$/,
  ],
  [
    'states at risk',
    { statesAtRisk: 9 },
    /9 crash states with something at risk explored, expected at least 10/,
  ],
  [
    'cuts',
    { cuts: { judged: 3, all: 4734 } },
    /3 of 4734 positions of the cut explored, expected at least 10/,
  ],
  [
    'families',
    { families: { ...NO_FAMILIES, prefix: 20 } },
    /1 families of crash states explored, expected at least 3/,
  ],
] as const) {
  t.test(`an exploration with too few ${name} is not enough for a pass`, async (t) => {
    t.match(whyTooFew({ ...ENOUGH, ...short }, 'use more'), expected);
  });
}
