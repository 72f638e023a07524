import { KitError } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import type { Target } from '../../conformance/target-file/definition.js';
import { withExample } from '../../conformance/target-file/key-examples.js';
import { loadTarget, TargetFileError } from '../../conformance/target-file/load.js';
import { portNames, unusedDataProblems } from '../../conformance/target-file/placeholders.js';
import { claimedFaults } from '../../faults/catalogue/catalogue.js';
import { commandLine } from '../host/command-line.js';
import { log, print, printJson } from '../host/console.js';
import { styleFor } from '../report/style.js';
import { table } from '../report/table.js';
import { dockerRuntime } from '../runtime/docker/container-deployment.js';
import { processRuntime } from '../runtime/process/process-runtime.js';
import type { PreparedRuntime } from '../runtime/runtime.js';
import { lookAhead, type Outlook } from './check/measurable.js';
import { lookForPrograms, type ProgramOutlook } from './check/programs.js';

interface CheckFlags {
  json?: boolean;
  runtime?: string;
}

/** What `check` found out about a target file without mistakes. */
interface CheckReport extends Outlook {
  programs: ProgramOutlook[];
  /** Names of the ports of the target; the unnamed one is ''. Each run chooses free ones. */
  ports: string[];
}

/**
 * Checks a target file and reports each problem on one line: the path of the key, what was expected there, and an
 * example. Then says what a run on this machine can and cannot measure. Starts nothing of the target. With `--runtime
 * docker` it also looks into the images: they must have the programs and users of the target, and the tools of the
 * faults that the target claims.
 * @throws KitError bad-usage for another runtime, target-unavailable when no container engine answers or an image
 *   cannot be provided.
 * @returns exit code 0 when there is no problem, 2 when there is one, 3 when the file claims something that cannot be
 *   measured here.
 */
export async function checkCommand(file: string, flags: CheckFlags): Promise<number> {
  const { runtime = 'process' } = flags;
  if (runtime !== 'process' && runtime !== 'docker')
    throw new KitError('bad-usage', `--runtime ${runtime}: expected process or docker`);
  const { target, problems, programs } = readTarget(file);
  const { prepared, notes, ...images } =
    target === undefined || problems.length > 0
      ? { prepared: undefined, notes: [], problems: [] }
      : await prepare(target, runtime);
  problems.push(...images.problems);
  for (const note of notes) log(`${file}: ${note}`);
  if (target === undefined || prepared === undefined || problems.length > 0) {
    if (flags.json) printJson({ ok: false, problems, ...(runtime === 'docker' && { notes }) });
    for (const problem of problems) log(`${file}: ${withExample(problem)}`);
    return EXIT_CODES.usage;
  }
  const report: CheckReport = { ...(await lookAhead(target, prepared)), programs, ports: portNames(target) };
  await prepared.close?.();
  const unmeasurable = report.requirements.filter(({ state }) => state === 'not-measurable');
  if (flags.json)
    printJson({
      ok: true,
      problems,
      ...(runtime === 'docker' && { notes }),
      measurable: unmeasurable.length === 0,
      ...report,
    });
  else for (const line of formatReport(report, file)) print(line);
  const claimed = report.requirements.filter(({ state }) => state !== 'not-claimed').length;
  log(
    unmeasurable.length === 0
      ? `${file}: nothing is wrong`
      : `${file}: nothing is wrong in the file; ${unmeasurable.length} of ${claimed} claimed requirements cannot be measured here: ${unmeasurable.map(({ id }) => id).join(', ')}`,
  );
  return unmeasurable.length === 0 ? EXIT_CODES.pass : EXIT_CODES.notMeasured;
}

interface TargetRead {
  target?: Target;
  problems: string[];
  programs: ProgramOutlook[];
}

function readTarget(file: string): TargetRead {
  try {
    const target = loadTarget(file);
    const { programs, problems } = lookForPrograms(target);
    return { target, problems: [...unusedDataProblems(target), ...problems], programs };
  } catch (error) {
    if (error instanceof TargetFileError) return { problems: [...error.problems], programs: [] };
    if (error instanceof KitError)
      return { problems: [error.message.replace(`${file}: `, '')], programs: [] };
    throw error;
  }
}

interface Prepared {
  prepared?: PreparedRuntime;
  problems: string[];
  /** What runs in which image, and the faults that cannot be injected there. */
  notes: string[];
}

/** Prepares the runtime as a run would do it: looks for users, and into images. */
async function prepare(target: Target, name: 'process' | 'docker'): Promise<Prepared> {
  const runtime = name === 'docker' ? dockerRuntime : processRuntime;
  const usable = await runtime.available();
  if (!usable.available)
    throw new KitError('target-unavailable', `--runtime ${name}: ${usable.why}; ${usable.remedy}`);
  try {
    const prepared = await runtime.prepare(target, log);
    const notes = name === 'docker' ? imageNotes(target, prepared) : [];
    return { prepared, problems: [], notes };
  } catch (error) {
    if (error instanceof KitError && error.code === 'bad-target')
      return { problems: [error.message], notes: [] };
    throw error;
  }
}

function imageNotes(target: Target, prepared: PreparedRuntime): string[] {
  const notes = Object.keys(target.services).map(
    (name) => `services.${name}: runs in the image ${prepared.imageOf?.(name) ?? ''}`,
  );
  for (const fault of claimedFaults(target.guarantee.faults)) {
    const supported = prepared.supports(fault);
    if (!supported.available) notes.push(`${fault.name}: ${supported.why}; ${supported.remedy}`);
  }
  return notes;
}

const STATE_WORDS = {
  measurable: 'yes',
  'by-chance': '?',
  'not-measurable': 'NO',
  'not-claimed': '-',
} as const;

function formatReport(
  { requirements, faults, programs, ports, gateSeconds }: CheckReport,
  file: string,
): string[] {
  const style = styleFor(process.stdout);
  const because = ({ why, remedy }: { why?: string; remedy?: string }) =>
    [why, remedy].filter((text) => text !== undefined).join('; ');
  return [
    style.strong(
      'Requirements that this machine can measure (-: the file does not claim it; ?: no claimed fault forces it)',
    ),
    ...table(requirements.map((one) => [`  ${STATE_WORDS[one.state]}`, one.id, one.title, because(one)])),
    style.strong('Claimed faults that can be injected here'),
    ...table(faults.map((one) => [`  ${one.available ? 'yes' : 'NO'}`, one.name, because(one)])),
    style.strong('Programs'),
    ...table(
      programs.map(({ key, program, path, interpreter, note }) => [
        `  ${key}`,
        program,
        [path ?? note ?? '', ...(interpreter === undefined ? [] : [`run by ${interpreter}`])].join(', '),
      ]),
    ),
    style.strong('Ports (each run chooses free ones)'),
    `  ${ports.map((name) => (name === '' ? '{port}' : `{port:${name}}`)).join(', ')}`,
    style.strong('First gate'),
    gateSeconds === null
      ? '  none: no claimed fault can be injected here'
      : `  ${commandLine('gate', file, '--budget', `${gateSeconds}s`)}   tries each fault once; less time leaves some untried`,
  ];
}
