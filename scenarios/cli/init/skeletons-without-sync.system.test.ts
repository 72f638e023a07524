import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { blocklogAvailability } from '../../../faults/power/blocklog-availability.js';
import { FORMS, gateSkeleton, initSkeleton, LANGUAGES, whyMissing } from '../../fixtures/skeletons.js';

const noPower = blocklogAvailability().available ? false : 'power cuts are not available';

t.jobs = 2;

// A skeleton that passes proves something only if the gate finds its most important line missing.
for (const [language, made] of Object.entries(LANGUAGES)) {
  for (const services of FORMS) {
    const name = `the ${language} skeleton (services: ${services}) fails without the sync before the answer`;
    t.test(name, { skip: noPower || whyMissing(made.program) }, async (t) => {
      const workspace = await initSkeleton(language, services);
      t.teardown(() => workspace.remove());
      const file = join(workspace.dir, made.file);
      const parts = readFileSync(file, 'utf8').split(made.sync);
      t.equal(parts.length, 2, 'the source contains this sync once');
      writeFileSync(file, parts.join('without' in made ? made.without : ''));
      const result = await gateSkeleton(workspace, 'power-cut', 20);
      const failedIds = result.requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
      t.ok(failedIds.includes('PP-12'), `failed: ${failedIds.join(', ')}; ${result.why}`);
    });
  }
}
