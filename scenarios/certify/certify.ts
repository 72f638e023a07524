import { mkdirSync, realpathSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { basename, isAbsolute, join, relative } from 'node:path';
import type Dockerode from 'dockerode';
import {
  type CertificateBody,
  certificateOf,
  certificateText,
  EXTENSION,
} from '../../conformance/certificate/certificate.js';
import { readEvidence, sha256, writeEvidence } from '../../conformance/certificate/evidence.js';
import { FACTS_FORMAT, type Facts } from '../../conformance/certificate/facts.js';
import { commandsOf, targetFiles } from '../../conformance/certificate/target-files.js';
import { KitError, messageOf } from '../../conformance/errors.js';
import { readRegularFile } from '../../conformance/read-file.js';
import { familiesOf, LEVELS, type LevelRule } from '../../conformance/requirements/levels.js';
import type { Level } from '../../conformance/requirements/requirements.js';
import type { FaultName, Target } from '../../conformance/target-file/definition.js';
import type { Availability } from '../../faults/fault.js';
import { removeTree } from '../../faults/files/remove-tree.js';
import { blocklogAvailability } from '../../faults/power/blocklog-availability.js';
import { DEFAULT_FILESYSTEM, type Filesystem } from '../../faults/power/filesystem.js';
import { findProgram } from '../../faults/programs.js';
import { runExplore } from '../explore/explore.js';
import { runGate } from '../gate/gate.js';
import { firstTailMs } from '../gate/places.js';
import type { GateResult } from '../gate/result.js';
import { type Selection, selectFaults } from '../gate/select-faults.js';
import { kitDigest, kitVersion } from '../host/version.js';
import { Pace } from '../round/pace.js';
import { connectEngine, engineAddress } from '../runtime/docker/engine.js';
import { faultsEnabledBy, type PowerBackendName } from '../runtime/power-backends.js';
import type { PreparedRuntime } from '../runtime/runtime.js';

export interface CertifyOptions {
  target: Target;
  /** Path of the target file. */
  file: string;
  runtime: PreparedRuntime;
  power: PowerBackendName;
  filesystem?: Filesystem;
  seed: number;
  budgetMs: number;
  /** An empty directory for the certificate and the evidence. */
  dir: string;
  /** Returns the command line that tries the given faults again, given the seed of a round. */
  replay(faults: readonly string[], seed: number): string;
  signal: AbortSignal;
  progress(line: string): void;
}

/** Result of a certification. */
export interface CertifyResult {
  certified: CertificateBody;
  /** Path of the certificate. */
  certificate: string;
  /** Result of the run of each level, with its violations. */
  runs: { level: Level; result: LevelResult }[];
}

/** Result of the run of one level, which is a gate or an exploration. */
export type LevelResult = Pick<
  GateResult,
  'verdict' | 'tookMs' | 'time' | 'replay' | 'violations' | 'bundle'
> &
  Partial<Pick<GateResult, 'warnings'>>;

/** Shares of the budget, according to the usual duration of a level's rounds. */
const BUDGET_SHARES: Readonly<Record<Level, number>> = {
  process: 3,
  torn: 2,
  power: 2,
  'crash-states': 2,
  errors: 4,
  cluster: 4,
};
/**
 * Fault that is injected in addition to those of a level: errors need crashes, so that stored messages are
 * read again.
 */
const ACCOMPANYING_FAULTS: Readonly<Partial<Record<Level, FaultName>>> = { errors: 'kill' };
const MIN_LEVEL_BUDGET_MS = 1000;

interface LevelPlan {
  rule: LevelRule;
  selection: Selection;
  /** True when the level is measured in the crash states of one recorded run. */
  exploresStates: boolean;
}

/**
 * Certifies a target: makes one run for each level that the target claims, with the faults of that level and
 * a separate history. Writes the certificate that follows from the histories.
 * @throws KitError as `runGate`.
 */
export async function runCertify(options: CertifyOptions): Promise<CertifyResult> {
  const { target, dir, seed, runtime } = options;
  const parts = targetFiles(target, options.file);
  const plans = await planLevels(options);
  const deadlineMs = performance.now() + options.budgetMs;
  const runs: CertifyResult['runs'] = [];
  const pace = new Pace(firstTailMs(target, runtime));
  const runnablePlans = plans.filter(
    ({ selection, exploresStates }) => exploresStates || selection.faults.length > 0,
  );
  for (const [index, plan] of runnablePlans.entries()) {
    const { level } = plan.rule;
    const remainingShares = runnablePlans
      .slice(index)
      .reduce((sum, { rule }) => sum + BUDGET_SHARES[rule.level], 0);
    const budgetMs = Math.max(
      MIN_LEVEL_BUDGET_MS,
      ((deadlineMs - performance.now()) * BUDGET_SHARES[level]) / remainingShares,
    );
    const testedNames = plan.exploresStates ? [level] : plan.selection.faults.map(({ name }) => name);
    options.progress(`level ${level}: ${testedNames.join(', ')}`);
    const result = await runLevel(options, plan, budgetMs, pace).catch((error: unknown) => {
      throw options.signal.aborted ? error : withoutCertificate(runs, error);
    });
    runs.push({ level, result });
    if (options.signal.aborted) break;
  }
  const warnings = [...new Set(runs.flatMap(({ result }) => result.warnings ?? []))];
  const facts: Facts = {
    format: FACTS_FORMAT,
    kitVersion: kitVersion(),
    kitSha256: kitDigest(),
    node: process.version,
    kernel: `${process.platform} ${release()}`,
    runtime: runtime.name,
    power: plans.some(({ selection }) => selection.faults.some(({ needs }) => needs.disk === 'power'))
      ? options.power
      : null,
    filesystem: filesystemName(options.filesystem ?? DEFAULT_FILESYSTEM),
    budgetMs: options.budgetMs,
    seed,
    timeMeasured: runtime.slowStartMs === undefined,
    targetFile: basename(options.file),
    programs: runtime.name === 'process' ? fingerprintPrograms(target) : [],
    images: await fingerprintImages(runtime.images ?? []),
    runs: plans.map(({ rule, selection }) => ({
      level: rule.level,
      notTried: selection.unavailable.map(({ name, availability }) => ({ name, why: availability.why })),
      hasHistory: runs.some(({ level }) => level === rule.level),
    })),
    ...(warnings.length === 0 ? {} : { warnings }),
  };
  const histories = runs.map(({ level }) => ({ level, file: join(runDir(dir, level), 'history.jsonl') }));
  try {
    writeEvidence(dir, facts, parts, histories);
    const statement = certificateOf(readEvidence(dir));
    const certificate = join(dir, 'certificate.json');
    writeFileSync(certificate, certificateText(statement));
    for (const { level, result } of runs) {
      // Only the files of a failed run help its reader. The evidence already contains the history of every run.
      if (result.verdict !== 'fail') removeTree(runDir(dir, level));
    }
    return { certified: statement.predicate[EXTENSION], certificate, runs };
  } catch (error) {
    throw withoutCertificate(runs, error);
  }
}

/**
 * Returns the error of a certification that has no certificate, because a later level could not be run or the disk is
 * full. A violation that a run has proven keeps its exit code.
 */
function withoutCertificate(runs: CertifyResult['runs'], cause: unknown): unknown {
  const failed = runs.filter(({ result }) => result.verdict === 'fail');
  if (failed.length === 0) return cause;
  const found = failed.flatMap(({ level, result: { violations } }) =>
    violations.slice(0, 1).map(({ requirement, what }) => `level ${level} failed ${requirement}: ${what}`),
  );
  const message = `${found.join('; ')}; there is no certificate: ${messageOf(cause)}`;
  return new KitError('violation', message, { cause });
}

/** Plans the levels of which the target claims a fault, with the faults that are available here. */
async function planLevels({ target, runtime, power, filesystem }: CertifyOptions): Promise<LevelPlan[]> {
  const claims = new Set<FaultName>(target.guarantee.faults);
  const plans: LevelPlan[] = [];
  for (const rule of LEVELS) {
    const claimedFamilies = familiesOf(rule).filter((family) => claims.has(family));
    if (claimedFamilies.length === 0 || (rule.needsNodes && target.nodes === undefined)) continue;
    const accompanying = ACCOMPANYING_FAULTS[rule.level];
    if (rule.measuredIn === 'states') {
      plans.push(planCrashStates(rule, runtime, filesystem));
      continue;
    }
    const wanted =
      accompanying !== undefined && claims.has(accompanying)
        ? [...claimedFamilies, accompanying]
        : claimedFamilies;
    const enabledFaults = runtime.enabledFaults ?? faultsEnabledBy(power);
    const selection = await selectFaults(target, wanted, {
      supports: (fault) => runtime.supports(fault),
      enabledFaults,
    });
    // An accompanying fault is needed only in its plain form, without the other faults of its family.
    selection.faults = selection.faults.filter(
      ({ name, family }) => family !== accompanying || name === accompanying,
    );
    const hasOwnFault = selection.faults.some(({ family }) => family !== accompanying);
    plans.push({
      rule,
      selection: hasOwnFault ? selection : { ...selection, faults: [] },
      exploresStates: false,
    });
  }
  return plans;
}

/** Plans an exploration. It needs a disk that can be recorded, and a target that runs on this machine. */
function planCrashStates(
  rule: LevelRule,
  { name }: PreparedRuntime,
  filesystem: Filesystem = DEFAULT_FILESYSTEM,
): LevelPlan {
  const availability: Availability =
    name === 'process'
      ? blocklogAvailability(filesystem.type)
      : {
          available: false,
          why: 'crash states are explored under process only',
          remedy: '--runtime process',
        };
  const unavailable = availability.available ? [] : [{ name: rule.level, availability }];
  return { rule, selection: { faults: [], unavailable }, exploresStates: availability.available };
}

async function runLevel(
  options: CertifyOptions,
  plan: LevelPlan,
  budgetMs: number,
  pace: Pace,
): Promise<LevelResult> {
  const { rule, selection } = plan;
  const { target, runtime, power, filesystem, seed, signal, progress } = options;
  const dir = runDir(options.dir, rule.level);
  mkdirSync(dir, { recursive: true });
  const common = {
    target,
    runtime,
    ...(filesystem === undefined ? {} : { filesystem }),
    seed,
    budgetMs,
    out: dir,
    keep: false,
    signal,
    progress,
  };
  if (plan.exploresStates)
    return runExplore({ ...common, replay: (seedOfRun) => options.replay([rule.level], seedOfRun) });
  const faults = selection.faults.map(({ name }) => name);
  return runGate({
    ...common,
    selection,
    power,
    pace,
    // Every round has all faults, because a level is not granted if one of its faults was not tried.
    faultsPerRound: faults.length,
    replay: (seedOfRound) => options.replay(faults, seedOfRound),
  });
}

/** Upper bound of the size of a program whose digest is a fact of the certificate. */
const MAX_PROGRAM_BYTES = 2 ** 30;

function runDir(dir: string, level: Level): string {
  return join(dir, 'runs', level);
}

function filesystemName({ type, mountOptions }: Filesystem): string {
  return [type, mountOptions].filter(Boolean).join(':');
}

/**
 * Returns paths and digests of the programs on this machine that a target's commands call and that are
 * outside its folder.
 */
function fingerprintPrograms(target: Target): Facts['programs'] {
  const names = new Set(commandsOf(target).map(([program = '']) => program));
  return [...names].sort().flatMap((name) => {
    if (name.includes('{dir}')) return [];
    const program = name === '{node}' ? process.execPath : isAbsolute(name) ? name : findProgram(name);
    if (program === undefined) return [];
    try {
      const path = realpathSync(program);
      if (!relative(target.dir, path).startsWith('..')) return [];
      return [{ name, path, sha256: sha256(readRegularFile(path, MAX_PROGRAM_BYTES)) }];
    } catch {
      // A program that cannot be read cannot be started either. The runs report that.
      return [];
    }
  });
}

/**
 * Returns the digests of the images in which a target's services run, by their names on the container engine
 * of this machine.
 */
async function fingerprintImages(names: readonly string[]): Promise<Facts['images']> {
  if (names.length === 0) return [];
  const engine: Dockerode = await connectEngine(engineAddress());
  const images: Facts['images'] = [];
  for (const name of [...names].sort()) {
    const { Id } = await engine.getImage(name).inspect();
    images.push({ name, sha256: Id.replace(/^sha256:/, '') });
  }
  return images;
}
