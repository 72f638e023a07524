import { familyOf, REQUIREMENTS } from '../../../conformance/requirements/requirements.js';
import { FAULT_NAMES } from '../../../conformance/target-file/definition.js';
import { findFault } from '../../../faults/catalogue/catalogue.js';
import { blamedFault } from './blamed-fault.js';
import type { FaultRow, MatrixCell, RequirementRow } from './model.js';
import type { BuiltRun } from './run-model.js';
import type { ReportSource } from './source.js';
import { shorten } from './strings.js';

/** Makes the rows of the matrix: the claimed requirements, then the others. */
export function requirementRows({ requirements, unclaimed }: ReportSource): RequirementRow[] {
  const known = new Map<string, { title: string; level: string }>(REQUIREMENTS.map((one) => [one.id, one]));
  const row = (id: string, verdict: RequirementRow['verdict'], why: string): RequirementRow => ({
    id,
    level: known.get(id)?.level ?? '',
    title: known.get(id)?.title ?? '',
    verdict,
    why: shorten(why),
    anchor: id.toLowerCase(),
  });
  return [
    ...requirements.map(({ id, verdict, why }) => row(id, verdict, why)),
    ...unclaimed.map((id) => row(id, 'not-claimed', 'the target does not claim it')),
  ];
}

/** Makes the columns of the matrix: the faults that were planned or injected, and those that could not be tried. */
export function faultRows(source: ReportSource, namesInRuns: Iterable<string>): FaultRow[] {
  const names = new Set([
    ...namesInRuns,
    ...(source.stated?.faults ?? []).map(({ name }) => name),
    ...source.notTried.map(({ name }) => name),
  ]);
  return [...names].map((name) => {
    const stated = source.stated?.faults.find((one) => one.name === name);
    const missing = source.notTried.find((one) => one.name === name);
    return {
      name,
      tried: stated?.tried ?? 0,
      hit: stated?.hit ?? 0,
      atRisk: 0,
      backend: isPower(name) ? source.power : '',
      why: shorten(missing?.why ?? ''),
      remedy: shorten(missing?.remedy ?? ''),
    };
  });
}

/** Requirements whose violation is counted at no fault when the evidence shows none. */
const OF_NO_FAULT = new Set(['PP-1', 'PP-5', 'PP-6']);
/** Name of the column for violations that no fault explains, such as the part of a message whose producer hung up. */
const NO_FAULT = 'no fault';
const NO_FAULT_INDEX = -1;
/** Name of the fault that an exploration stands for. */
export const CRASH_STATES = 'crash-states';

/** Returns whether a fault needs a disk whose power can be cut, and so one of the backends that make one. */
function isPower(name: string): boolean {
  return findFault(name)?.needs.disk === 'power';
}

/** Adds the counts of the runs to the columns. */
export function countInjections(rows: FaultRow[], runs: readonly BuiltRun[]): void {
  for (const { model, faultEvents } of runs)
    model.injections.forEach(({ fault, hit, atRisk }, index) => {
      const row = rows[fault];
      if (row === undefined) return;
      row.tried += 1;
      if (hit) {
        row.hit += 1;
        row.atRisk += atRisk;
        row.why = '';
      } else if (row.hit === 0) row.why = shorten(faultEvents[index]?.detail ?? '');
    });
  for (const { run } of runs) {
    const figures = run.evaluation?.findings.find(({ requirement }) => requirement === 'PP-13')?.figures;
    const row = rows.find(({ name }) => name === CRASH_STATES);
    if (row === undefined || figures?.crashStates === undefined || figures.crashStates === 0) continue;
    // The hits of an exploration are the crash states in which a message was at risk.
    row.tried = figures.crashStates;
    row.hit = figures.statesAtRisk ?? 0;
    if (row.hit > 0) row.why = '';
  }
  for (const row of rows)
    if (row.tried === 0 && row.why === '') row.why = 'it was not tried before the run ended';
}

/** Makes the cells: what each fault showed about each requirement that it concerns. */
export function matrixCells(
  requirements: readonly RequirementRow[],
  faults: readonly FaultRow[],
  runs: readonly BuiltRun[],
): MatrixCell[] {
  const violations = countViolations(runs, requirements, faults);
  const ofNoFault = noFaultCells(requirements, violations, faults.length);
  const cells = requirements.flatMap(({ id, verdict }, requirement) => {
    if (verdict === 'not-claimed') return [];
    const needs = REQUIREMENTS.find((one) => one.id === id)?.needs ?? 'any';
    return faults.flatMap(({ name, hit, atRisk }, fault): MatrixCell[] => {
      const family = familyOf(name, FAULT_NAMES) ?? name;
      const concerns =
        needs === 'any' ? name !== CRASH_STATES : needs.includes(name) || needs.includes(family);
      const found = violations.get(`${requirement} ${fault}`) ?? 0;
      if (!concerns && found === 0) return [];
      const shown = found > 0 ? 'fail' : hit === 0 || verdict === 'not-measured' ? 'not-measured' : 'pass';
      return [{ requirement, fault, hits: hit, atRisk, violations: found, verdict: shown }];
    });
  });
  return [...cells, ...ofNoFault];
}

/** Makes the cells of the violations that no fault explains. Their column comes after those of the faults. */
function noFaultCells(
  requirements: readonly RequirementRow[],
  violations: ReadonlyMap<string, number>,
  fault: number,
): MatrixCell[] {
  return requirements.flatMap((_, requirement): MatrixCell[] => {
    const found = violations.get(`${requirement} ${NO_FAULT_INDEX}`) ?? 0;
    if (found === 0) return [];
    return [{ requirement, fault, hits: 0, atRisk: 0, violations: found, verdict: 'fail' }];
  });
}

/** Adds the column of the violations that no fault explains, if a cell needs it. */
export function withNoFault(faults: readonly FaultRow[], cells: readonly MatrixCell[]): FaultRow[] {
  if (!cells.some(({ fault }) => fault === faults.length)) return [...faults];
  const none = { name: NO_FAULT, tried: 0, hit: 0, atRisk: 0, backend: '', why: '', remedy: '' };
  return [...faults, none];
}

/** Counts the violations of each requirement by the fault that took the message, or that the exploration made. */
function countViolations(
  runs: readonly BuiltRun[],
  requirements: readonly RequirementRow[],
  faults: readonly FaultRow[],
): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { run, model, messageIndex, faultEvents } of runs) {
    const blamed = blamedFault(run.events, faultEvents);
    for (const { requirement, verdict, violations, figures } of run.evaluation?.findings ?? []) {
      const row = requirements.findIndex(({ id }) => id === requirement);
      if (verdict !== 'fail' || row < 0) continue;
      const states = faults.findIndex(({ name }) => name === CRASH_STATES);
      if (requirement === 'PP-13' && states >= 0) {
        counts.set(`${row} ${states}`, figures.brokenStates ?? violations.length);
        continue;
      }
      for (const { id } of violations) {
        const message = id === undefined ? undefined : messageIndex.get(id);
        const lostBy = model.injections[model.messages.lostBy[message ?? -1] ?? -1];
        const isDelivered = id !== undefined && (model.messages.deliveries[message ?? -1] ?? 0) > 0;
        // A message that was lost without a crash, or that no one submitted, is the deed of no fault.
        const injection =
          lostBy ??
          (isDelivered
            ? model.injections[blamed(requirement, id)]
            : OF_NO_FAULT.has(requirement)
              ? undefined
              : lastCrash(model.injections));
        const key = `${row} ${injection?.fault ?? NO_FAULT_INDEX}`;
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
  }
  return counts;
}

/** The fault that a violation without a message is counted at: a failed start, or the last hit. */
function lastCrash<I extends { hit: boolean; recoveryFailure: string }>(
  injections: readonly I[],
): I | undefined {
  return (
    injections.find(({ recoveryFailure }) => recoveryFailure !== '') ?? injections.findLast(({ hit }) => hit)
  );
}
