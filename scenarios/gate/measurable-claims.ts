import type { Target } from '../../conformance/target-file/definition.js';
import type { PreparedRuntime } from '../runtime/runtime.js';

/**
 * Returns the target without claims about time where the runtime is too slow to measure them. A bound on duplicates that
 * counts seconds is such a claim, too: a queue that notes what was consumed twice a second may need many seconds there.
 */
export function withMeasurableClaims(
  target: Target,
  { slowStartMs }: Pick<PreparedRuntime, 'slowStartMs'>,
): Target {
  if (slowStartMs === undefined) return target;
  const { recoverySeconds: _recovery, redeliverySeconds: _redelivery, ...guarantee } = target.guarantee;
  const { duplicatesPerCrash, duplicatesPerPowerCut, duplicatesAfterIndexLoss } = guarantee;
  return {
    ...target,
    guarantee: {
      ...guarantee,
      duplicatesPerCrash: withoutSeconds(duplicatesPerCrash),
      ...(duplicatesPerPowerCut === undefined
        ? {}
        : { duplicatesPerPowerCut: withoutSeconds(duplicatesPerPowerCut) }),
      ...(duplicatesAfterIndexLoss === undefined
        ? {}
        : { duplicatesAfterIndexLoss: withoutSeconds(duplicatesAfterIndexLoss) }),
    },
  };
}

type Bound = Target['guarantee']['duplicatesPerCrash'];

function withoutSeconds(bound: Bound): Bound {
  return typeof bound === 'object' && 'consumedWithinSeconds' in bound ? 'unbounded' : bound;
}
