import t from 'tap';
import { claimedFaults } from './catalogue.js';

const namesOf = (...families: string[]) => claimedFaults(families).map(({ name }) => name);

t.test('a target gets every fault of a family that it claims', async (t) => {
  t.strictSame(namesOf('power-cut'), ['power-cut']);
  t.ok(namesOf('kill').includes('kill-one'));
  t.strictSame(namesOf(), []);
});

t.test('a lost disk together with power cuts needs the claim of both', async (t) => {
  t.strictSame(namesOf('node-loss'), ['node-loss']);
  t.strictSame(namesOf('power-cut', 'node-loss'), ['power-cut', 'node-loss', 'node-loss-power']);
});
