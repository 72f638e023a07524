import t from 'tap';
import { loadTarget } from '../../conformance/target-file/load.js';
import { REFERENCE_TARGET } from '../../conformance/targets/reference.js';
import { withMeasurableClaims } from './measurable-claims.js';

const target = loadTarget(REFERENCE_TARGET);

t.test('a runtime that is not slow measures every claim', async (t) => {
  t.equal(withMeasurableClaims(target, {}), target);
});

t.test('a slow runtime measures no claim that counts seconds, and every other one', async (t) => {
  t.match(target.guarantee, {
    duplicatesPerPowerCut: { consumedWithinSeconds: Number },
    recoverySeconds: Number,
    redeliverySeconds: Number,
  });
  const { recoverySeconds: _recovery, redeliverySeconds: _redelivery, ...others } = target.guarantee;
  t.same(withMeasurableClaims(target, { slowStartMs: 1 }).guarantee, {
    ...others,
    duplicatesPerPowerCut: 'unbounded',
  });
});
