import type { HistoryEvent } from '../history/events.js';
import type { RequirementId } from '../requirements/requirements.js';
import { makeFinding } from './finding.js';
import { attributeLosses, hitsOf, lastMiss, nextHitLookup } from './hits.js';
import { shapeFigures, shapesOf } from './loss-shape.js';
import type { Finding } from './verdict.js';

/**
 * Makes the checker of "each message that was confirmed before a fault of this kind is delivered". It blames
 * the fault for a loss if no other crash came between the confirmation and the fault.
 * @param faultNames name of the fault in the singular and in the plural, for the reasons of findings.
 * @param matches whether a fault is of this kind.
 */
export function lossAfterFault(
  requirement: RequirementId,
  faultNames: readonly [one: string, several: string],
  matches: (fault: string) => boolean,
): (history: readonly HistoryEvent[]) => Finding {
  const [what, several] = faultNames;
  const one = `${/^[aeiou]/.test(what) ? 'an' : 'a'} ${what}`;
  return (history) => {
    const hits = hitsOf(history, matches);
    const atRisk = hits.reduce((sum, hit) => sum + hit.atRisk, 0);
    const some = `${hits.length} ${hits.length === 1 ? what : several}`;
    if (atRisk === 0) {
      const why =
        hits.length === 0
          ? `no ${what} hit${lastMiss(history, matches)}`
          : `nothing was at risk at any of ${some}`;
      return makeFinding(requirement, 'not-measured', why, { hits: hits.length, atRisk });
    }
    const ids: string[] = [];
    const lost = attributeLosses(history, nextHitLookup(history, hits), ({ injection }, id) => {
      ids.push(id);
      return `confirmed before ${what} ${injection}, and never delivered`;
    });
    const { violations, undecided } = lost;
    const figures = {
      hits: hits.length,
      atRisk,
      lostAfterFault: violations.count,
      ...shapeFigures(shapesOf(history, ids)),
    };
    if (violations.count > 0) {
      const why = lost.describe(`messages confirmed before ${one}`);
      return makeFinding(requirement, 'fail', why, figures, violations);
    }
    if (undecided > 0) {
      const why = lost.describe(`messages confirmed before ${one}`);
      return makeFinding(requirement, 'not-measured', why, figures);
    }
    return makeFinding(requirement, 'pass', `none of ${atRisk} at risk at ${some} was lost`, figures);
  };
}
