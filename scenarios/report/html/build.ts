import { fixItLink } from '../../host/fix-it.js';
import { kitVersion } from '../../host/version.js';
import { diagnose } from './diagnoses.js';
import { explorationModel } from './exploration-model.js';
import { countInjections, faultRows, matrixCells, requirementRows, withNoFault } from './matrix.js';
import type { Diagnosis, ReportModel } from './model.js';
import { buildRun } from './run-model.js';
import type { ReportSource } from './source.js';
import { summarise } from './summary.js';

/** Makes the data of a report from its source. */
export function buildReport(source: ReportSource): ReportModel {
  const names = new Set(
    source.runs.flatMap(({ events }) =>
      events.flatMap((event) =>
        event.kind === 'run-started' ? event.faults : event.kind === 'fault' ? [event.fault] : [],
      ),
    ),
  );
  const faults = faultRows(source, names);
  const indexByName = new Map(faults.map(({ name }, index) => [name, index]));
  const runs = source.runs.map((run) => buildRun(run, (name) => indexByName.get(name) ?? -1, source.habits));
  countInjections(faults, runs);
  const requirements = requirementRows(source);
  const matrix = matrixCells(requirements, faults, runs);
  const diagnoses = source.verdict === 'fail' ? diagnose(source, runs) : [];
  return {
    format: 1,
    kitVersion: source.kitVersion === '' ? kitVersion() : source.kitVersion,
    command: source.command,
    target: source.target,
    protocol: source.protocol,
    seed: source.seed,
    startedAt: source.startedAt,
    tookMs: source.tookMs,
    source: source.path,
    summary: summarise(source, runs, faults, diagnoses),
    requirements,
    faults: withNoFault(faults, matrix),
    matrix,
    diagnoses,
    runs: runs.map(({ model }) => model),
    exploration: explorationModel(source, runs),
    fixIt: fixItOf(source, diagnoses),
  };
}

/** Returns the link of the first cause, or that of the first failed requirement. */
function fixItOf({ requirements }: ReportSource, [first]: readonly Diagnosis[]): string {
  const failed = requirements.filter(({ verdict }) => verdict === 'fail').map(({ id }) => id);
  const [id] = failed;
  return first?.fixIt || (id === undefined ? '' : fixItLink(id));
}
