import t from 'tap';
import { blocklogAvailability } from '../../../faults/power/blocklog-availability.js';
import { FORMS, gateSkeleton, initSkeleton, LANGUAGES, whyMissing } from '../../fixtures/skeletons.js';

/** The faults that hit in every gate of a correct queue. Power cuts need root. */
const FAULTS = blocklogAvailability().available ? ['power-cut', 'kill'] : ['kill'];

t.jobs = 2;

for (const [language, { program }] of Object.entries(LANGUAGES)) {
  for (const services of FORMS) {
    const name = `the ${language} skeleton (services: ${services}) passes`;
    t.test(name, { skip: whyMissing(program) }, async (t) => {
      const workspace = await initSkeleton(language, services);
      t.teardown(() => workspace.remove());
      for (const fault of FAULTS) {
        const result = await gateSkeleton(workspace, fault, 3);
        t.match(result, { lost: 0, duplicates: 0, corrupted: 0, verdict: 'pass' }, result.why);
        t.ok(result.confirmed > 10, `${result.confirmed} confirmed`);
        t.ok(
          result.faults.some(({ hit }) => hit > 0),
          `${fault} has hit`,
        );
      }
    });
  }
}
