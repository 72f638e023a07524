import fc from 'fast-check';
import t from 'tap';
import { Instants, readTogether } from './instants.js';

t.test(
  'lengths that are read together were true at one moment, whatever grows between the reads',
  async () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.nat(2), { minLength: 3, maxLength: 3 }), { maxLength: 12 }),
        (growth) => {
          const now = [0, 0, 0];
          const moments = [now.join()];
          let step = 0;
          // The logs are read one after the other, and each may grow before each read.
          const read = () =>
            now.map((_, index) => {
              const by = growth[Math.floor(step / 3)]?.[step++ % 3] ?? 0;
              for (let count = 0; count < by; count++) {
                const grown = (index + count) % 3;
                now[grown] = (now[grown] ?? 0) + 1;
                moments.push(now.join());
              }
              return now[index] ?? 0;
            });
          const lengths = readTogether(read);
          return lengths === undefined || moments.includes(lengths.join());
        },
      ),
      { numRuns: 1000 },
    );
  },
);

t.test('logs that never stand still give no lengths', async (t) => {
  let length = 0;
  t.equal(
    readTogether(() => [length++]),
    undefined,
  );
  const instants = new Instants(() => [length++]);
  t.equal(instants.sample(), undefined);
  t.same(instants.all, []);
});

t.test('a moment that differs in nothing from the one before is no instant', async (t) => {
  const lengths = [4, 7];
  const instants = new Instants(() => [...lengths]);
  t.equal(instants.sample(), 0);
  t.equal(instants.sample(), undefined, 'nothing has happened');
  lengths[1] = 8;
  t.equal(instants.sample(), 1, 'a disk has completed a request');
  instants.noteConfirmed();
  t.equal(instants.sample(), 2, 'a message was confirmed, which no request to a disk shows');
  t.equal(instants.sample(), undefined);
  t.equal(instants.sample(true), 3, 'its copies need a number');
  instants.dropCopies(3);
  t.same(
    instants.all.map(({ hasCopies }) => hasCopies),
    [false, false, false, false],
  );
});

t.test(
  'a message counts as confirmed from the next instant on, and as offered from the last one on',
  async (t) => {
    const lengths = [1];
    const instants = new Instants(() => [...lengths]);
    t.equal(instants.next, 0);
    t.equal(instants.last, 0);
    instants.sample();
    lengths[0] = 2;
    instants.sample();
    t.equal(instants.next, 2);
    t.equal(instants.last, 1);
  },
);
