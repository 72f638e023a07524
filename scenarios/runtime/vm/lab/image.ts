import { createHash } from 'node:crypto';
import { accessSync, constants, mkdirSync, readFileSync, renameSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Availability } from '../../../../faults/fault.js';
import { removeTree } from '../../../../faults/files/remove-tree.js';
import { findProgram } from '../../../../faults/programs.js';
import { until } from '../../../../faults/waiting.js';
import { commandLine } from '../../../host/command-line.js';
import type { Registry } from '../../../host/registry.js';
import { engineAvailability } from '../../docker/engine.js';
import { IMAGE_INPUTS, labFiles, makeDisks } from './disks.js';
import {
  filesIn,
  imagesDirectory,
  type LabImage,
  lockImages,
  noteUse,
  readImage,
  removeOldImages,
  removeUnfinished,
  sealImage,
  syncPath,
  whyCacheRefused,
} from './image-cache.js';
import { type Accelerator, Machine, type MachineFiles, MEMORY_MIB, QEMU } from './machine.js';

const TOOL_TIMEOUT_MS = 120_000;
/**
 * Timeout of a trial boot with KVM. Such a boot takes two seconds; where KVM does not really work, it never
 * ends.
 */
const KVM_TRIAL_TIMEOUT_MS = 15_000;
const KVM_CONSOLE_TIMEOUT_MS = 4000;
const FIRST_BOOT_TIMEOUT_MS = 180_000;

/** Programs that a build needs, with their Debian packages. */
const BUILD_TOOLS = [
  ['mmdebstrap', 'mmdebstrap'],
  ['genext2fs', 'genext2fs'],
  ['resize2fs', 'e2fsprogs'],
  ['tune2fs', 'e2fsprogs'],
  ['e2fsck', 'e2fsprogs'],
] as const;

/** Input of the build of an image. */
export interface BuildPlan {
  registry: Registry;
  log(line: string): void;
  /** Loads container images into the container engine before the state is saved. */
  addImages(enginePort: number): Promise<void>;
}

/**
 * Reports whether a lab VM can be started here at once. Building one takes minutes: `lab up` and
 * `gate --profile containers` do it, and say so.
 */
export function imageAvailability(): Availability {
  const buildable = buildAvailability();
  if (!buildable.available || builtImage() !== undefined) return buildable;
  return {
    available: false,
    why: 'the lab VM of this version has not been built',
    remedy: `${commandLine('lab', 'up')} (takes some minutes, once)`,
  };
}

/** Reports whether this machine has what a lab VM needs, including the build tools if none has been built. */
export function buildAvailability(): Availability {
  const unavailable = (why: string, remedy: string): Availability => ({ available: false, why, remedy });
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    return unavailable(
      `it needs Linux on x64; this is ${process.platform} on ${process.arch}`,
      'run it on such a machine',
    );
  }
  const refused = whyCacheRefused();
  if (refused !== undefined) return unavailable(refused.why, refused.remedy);
  const builders = builtImage() === undefined ? BUILD_TOOLS : [];
  // Without root privileges, the Debian root is made in a user namespace.
  const namespace =
    process.getuid?.() === 0 || builders.length === 0 ? [] : [['newuidmap', 'uidmap'] as const];
  const missing = [[QEMU, 'qemu-system-x86'] as const, ...builders, ...namespace].filter(
    ([program]) => findProgram(program) === undefined,
  );
  if (missing.length === 0) return { available: true };
  const packages = [...new Set(missing.map(([, name]) => name))].join(' ');
  return unavailable(
    `${missing.map(([program]) => program).join(', ')} not installed`,
    `apt-get install --no-install-recommends ${packages}`,
  );
}

/**
 * Returns the key of an image's content. It changes with the kit, Node, QEMU, and the sizes of memory and
 * disks.
 */
export function imageKey(): string {
  // Include QEMU: only the same QEMU that wrote a saved state can be trusted to read it.
  const programs = [process.execPath, findProgram(QEMU)].map((path) => path && statSync(path));
  const versions = programs.map((program) => program && [program.size, program.mtimeMs]);
  const hash = createHash('sha256').update(JSON.stringify([...IMAGE_INPUTS, MEMORY_MIB, versions]));
  for (const file of labFiles()) hash.update(readFileSync(file));
  return hash.digest('hex').slice(0, 16);
}

/**
 * Returns the image of this kit; undefined when it has not been built.
 * @throws KitError bad-usage when another user could have written it.
 */
export function builtImage(): LabImage | undefined {
  const key = imageKey();
  return readImage(join(imagesDirectory(), key), key);
}

/**
 * Returns the image of this kit, and builds it if it is missing: a Debian root with a container engine, a
 * first boot, and its saved state. Only one process of the user builds at a time; others wait for it.
 * @throws KitError bad-usage when the directory of the images cannot be used, and Error with the message of the step
 *   that failed.
 */
export async function ensureLabImage(plan: BuildPlan): Promise<LabImage> {
  const existing = builtImage();
  if (existing !== undefined && noteUse(existing)) return existing;
  const lock = await lockImages(() =>
    plan.log('lab: another process builds or removes an image of the lab VM: waiting for it'),
  );
  try {
    const built = builtImage();
    return built !== undefined && noteUse(built) ? built : await buildLocked(plan);
  } finally {
    lock.release();
  }
}

/** Builds the image of this kit. The caller holds the lock. */
async function buildLocked(plan: BuildPlan): Promise<LabImage> {
  plan.log('lab: building the lab VM, once per user; it takes some minutes');
  const dir = imagesDirectory();
  removeUnfinished(dir);
  const key = imageKey();
  // The name shows `clean` whose folder it is.
  const folder = join(dir, `plugpull-${plan.registry.runId}-${key}`);
  const directory = { kind: 'directory', path: folder } as const;
  plan.registry.made(directory);
  try {
    mkdirSync(folder, { mode: 0o700 });
    await build(folder, plan);
    removeTree(join(dir, key));
    renameSync(folder, join(dir, key));
    syncPath(dir);
  } finally {
    removeTree(folder);
    plan.registry.gone(directory);
  }
  removeOldImages(dir, key);
  const image = builtImage();
  if (image === undefined) throw new Error(`the image of the lab VM in ${dir} cannot be read`);
  return image;
}

async function build(folder: string, plan: BuildPlan): Promise<void> {
  const files = filesIn(folder);
  const logElapsed = stopwatch(plan.log);
  const kernel = await makeDisks(folder, files);
  logElapsed('Debian root');
  const accelerator = await tryKvm(folder, files, plan);
  const dir = join(folder, 'first');
  const machine = await Machine.start(
    { files, accelerator, start: 'first', dir, registry: plan.registry },
    FIRST_BOOT_TIMEOUT_MS,
  );
  try {
    await waitForEngine(machine.address.enginePort);
    logElapsed(`first boot (${accelerator})`);
    await plan.addImages(machine.address.enginePort);
    logElapsed('images of containers');
    // Drop the page cache: pages that can be read again need not be in the saved state.
    await machine.agent.run(['sh', '-c', 'sync; echo 3 > /proc/sys/vm/drop_caches'], TOOL_TIMEOUT_MS);
    await machine.save();
  } finally {
    await machine.stop();
    removeTree(dir);
  }
  sealImage(folder, { accelerator, kernel, files });
  logElapsed('saved state');
}

/** Boots a trial machine with KVM: /dev/kvm may exist on a machine where KVM does not boot a kernel. */
async function tryKvm(folder: string, files: MachineFiles, plan: BuildPlan): Promise<Accelerator> {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch {
    return 'tcg';
  }
  const dir = join(folder, 'trial');
  try {
    const machine = await Machine.start(
      {
        ...{ files, accelerator: 'kvm', start: 'trial', dir, registry: plan.registry },
        consoleTimeoutMs: KVM_CONSOLE_TIMEOUT_MS,
      },
      KVM_TRIAL_TIMEOUT_MS,
    );
    await machine.stop();
    return 'kvm';
  } catch {
    plan.log('lab: /dev/kvm is there and does not boot a kernel: going on in software');
    return 'tcg';
  } finally {
    removeTree(dir);
  }
}

/** Makes a function that logs how long each part took. */
function stopwatch(log: (line: string) => void): (part: string) => void {
  let lastMs = performance.now();
  return (part) => {
    const nowMs = performance.now();
    log(`lab: ${part}: ${((nowMs - lastMs) / 1000).toFixed(1)} s`);
    lastMs = nowMs;
  };
}

const ENGINE_TIMEOUT_MS = 120_000;

/**
 * Waits for the container engine behind a port of loopback.
 * @throws Error when it does not answer in time.
 */
export async function waitForEngine(port: number): Promise<void> {
  const address = `tcp://127.0.0.1:${port}`;
  const up = await until(
    async () => (await engineAvailability(address)).available,
    ENGINE_TIMEOUT_MS,
    undefined,
    200,
  );
  if (!up) throw new Error(`the engine of the lab VM did not answer in ${ENGINE_TIMEOUT_MS} ms`);
}
