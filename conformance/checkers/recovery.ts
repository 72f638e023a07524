import type { HistoryEvent } from '../history/events.js';
import type { Guarantee } from '../target-file/definition.js';
import { judgeViolations, makeFinding, Violations } from './finding.js';
import type { Finding } from './verdict.js';

/** Checks PP-10: the target becomes ready again after every fault. */
export function checkRecovers(history: readonly HistoryEvent[]): Finding {
  const violations = new Violations();
  let recoveries = 0;
  for (const event of history) {
    if (event.kind === 'recovered') recoveries += 1;
    if (event.kind !== 'recovery-failed') continue;
    violations.add(`not ready ${seconds(event.waitedMs)} after fault ${event.injection}: ${event.detail}`);
  }
  const figures = { recoveries, failedRecoveries: violations.count };
  const all = judgeViolations(
    'PP-10',
    violations,
    { count: recoveries, what: 'recoveries' },
    'recoveries failed',
    figures,
  );
  return all.verdict === 'pass'
    ? { ...all, why: `all ${recoveries} recoveries ended with every service ready` }
    : all;
}

/** Checks PP-11: the target is ready again within the claimed recovery time. */
export function checkRecoveryTime(history: readonly HistoryEvent[], guarantee: Guarantee): Finding {
  if (guarantee.recoverySeconds === undefined) {
    return makeFinding('PP-11', 'not-measured', 'the target claims no recovery time', {});
  }
  const limitMs = guarantee.recoverySeconds * 1000;
  const violations = new Violations();
  let recoveries = 0;
  let worstRecoveryMs = 0;
  for (const event of history) {
    const tookMs =
      event.kind === 'recovered'
        ? event.tookMs
        : event.kind === 'recovery-failed'
          ? event.waitedMs
          : undefined;
    if (tookMs === undefined || !('injection' in event)) continue;
    recoveries += 1;
    worstRecoveryMs = Math.max(worstRecoveryMs, tookMs);
    if (tookMs <= limitMs) continue;
    violations.add(
      `${seconds(tookMs)} after fault ${event.injection}, where ${seconds(limitMs)} are claimed`,
    );
  }
  const figures = { recoveries, worstRecoveryMs };
  if (violations.count > 0)
    return makeFinding(
      'PP-11',
      'fail',
      `the worst recovery took ${seconds(worstRecoveryMs)}`,
      figures,
      violations,
    );
  if (recoveries === 0) return makeFinding('PP-11', 'not-measured', 'no recoveries', figures);
  return makeFinding(
    'PP-11',
    'pass',
    `the worst of ${recoveries} recoveries took ${seconds(worstRecoveryMs)}`,
    figures,
  );
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(2)} s`;
}
