import { violationCauses } from '../../gate/violation-causes.js';
import { fixItLink } from '../../host/fix-it.js';
import type { Diagnosis } from './model.js';
import { type BuiltRun, isExploration } from './run-model.js';
import type { ReportSource } from './source.js';
import { shorten } from './strings.js';

/** Names the causes of the violations, those with the most messages first. */
export function diagnose(source: ReportSource, runs: readonly BuiltRun[]): Diagnosis[] {
  const states = stateDiagnosis(source);
  const losses = runs.flatMap((built, run) =>
    isExploration(built) ? [] : violationDiagnoses(source, built, run),
  );
  const failed = runs.flatMap(recoveryDiagnoses);
  const all = [...states, ...losses, ...failed].map((one) => {
    const [id] = one.requirements;
    return id === undefined ? one : { ...one, fixIt: fixItLink(id) };
  });
  if (all.length > 0) return all;
  return (source.stated?.causes ?? []).map((cause) => ({ ...EMPTY, sentence: shorten(cause) }));
}

const EMPTY: Diagnosis = {
  ...{ cause: 'unknown', certainty: 'proven', sentence: '', facts: [], fix: '', file: '', service: '' },
  ...{ messages: 0, example: null, run: -1, injection: -1, requirements: [], fixIt: '' },
};

function violationDiagnoses(
  { habits }: ReportSource,
  { run, losses, faultEvents }: BuiltRun,
  index: number,
): Diagnosis[] {
  return violationCauses(run.events, habits, run.evaluation ?? { findings: [] }, losses).map(
    ({ kind, sentence, facts, fix, file, service, messages, fault, requirements }) => ({
      requirements,
      fixIt: '',
      cause: kind,
      certainty: 'proven',
      sentence: shorten(sentence),
      facts: facts.map((fact) => shorten(fact)),
      fix: shorten(fix),
      file: shorten(file),
      service,
      messages: messages.length,
      example: messages[0] ?? null,
      run: index,
      injection: fault === undefined ? -1 : faultEvents.indexOf(fault),
    }),
  );
}

/** Names the faults after which the target did not become ready again. */
function recoveryDiagnoses({ model }: BuiltRun, run: number): Diagnosis[] {
  const injection = model.injections.findIndex(({ recoveryFailure }) => recoveryFailure !== '');
  const failed = model.injections[injection];
  if (failed === undefined) return [];
  return [
    {
      ...EMPTY,
      requirements: ['PP-10'],
      sentence: `the target does not become ready again after injection ${failed.number}: ${failed.recoveryFailure}`,
      facts: [failed.detail],
      run,
      injection,
    },
  ];
}

/** Lines of a story that the sentence and the fix of a diagnosis say already, or that are too long for a fact. */
const SHOWN_ELSEWHERE = /^(cause: |to fix it: |the files on this disk: )/;

function stateDiagnosis({ crashStates }: ReportSource): Diagnosis[] {
  const cause = crashStates?.cause;
  if (cause === undefined || cause === null) return [];
  const { kind, sentence, fix, file, service, message, story } = cause;
  return [
    {
      ...EMPTY,
      cause: kind,
      requirements: ['PP-13'],
      sentence: shorten(sentence),
      facts: story.filter((line) => !SHOWN_ELSEWHERE.test(line)).map((line) => shorten(line)),
      fix: shorten(fix),
      file: shorten(file),
      service,
      messages: 1,
      example: message,
    },
  ];
}
