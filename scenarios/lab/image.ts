import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  accessSync,
  constants,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import type { Availability } from '../../faults/fault.js';
import { findProgram } from '../../faults/injections.js';
import type { Registry } from '../residue/registry.js';
import { packageRoot } from '../version.js';
import { cpioArchive } from './cpio.js';
import { waitForEngine } from './engine-ready.js';
import { type Accelerator, Machine, type MachineFiles, MEMORY_MIB, QEMU } from './machine.js';

const run = promisify(execFile);

const SUITE = 'bookworm';
const KERNEL_PACKAGE = 'linux-image-cloud-amd64';
const PACKAGES = [
  'docker.io',
  'dmsetup',
  'e2fsprogs',
  'xfsprogs',
  'strace',
  'kmod',
  'iproute2',
  'iptables',
  'busybox-static',
];
const LEFT_OUT = ['/usr/share/man/*', '/usr/share/doc/*', '/usr/share/locale/*', '/usr/share/info/*'];
/** Drivers of the machine's own disk, in the order in which they are loaded; the first program has the same list. */
const FIRST_MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'virtio_blk',
];
const LAB_FILES = ['init', 'initramfs-init', 'agent.mjs'];

/** Both disks take room only where something was written. */
const ROOT_BYTES = 6 * 2 ** 30;
const DATA_BYTES = 2 ** 30;
const BLOCK_BYTES = 4096;
const SPARE_BYTES = 300 * 2 ** 20;
const MMDEBSTRAP_TIMEOUT_MS = 600_000;
const TOOL_TIMEOUT_MS = 120_000;
/** The check names every directory entry that it changes. */
const MOST_WORDS_BYTES = 64 * 2 ** 20;
/** Where the processor helps, a boot takes two seconds; where it only seems to, it never ends. */
const KVM_TRIAL_MS = 15_000;
const KVM_KERNEL_MS = 4000;
const FIRST_BOOT_TIMEOUT_MS = 180_000;

/** Programs that a build needs, with their Debian packages. */
const BUILDERS = [
  ['mmdebstrap', 'mmdebstrap'],
  ['genext2fs', 'genext2fs'],
  ['resize2fs', 'e2fsprogs'],
  ['tune2fs', 'e2fsprogs'],
  ['e2fsck', 'e2fsprogs'],
] as const;

/** A machine that has been built, booted once, and saved with its engine running. */
export interface LabImage {
  files: MachineFiles;
  accelerator: Accelerator;
  key: string;
}

export interface BuildPlan {
  /** Holds one folder for each image. */
  dir: string;
  registry: Registry;
  say(line: string): void;
  /** Puts the images of containers on the engine before the state is saved. */
  fill(enginePort: number): Promise<void>;
}

/** Whether a lab VM can be started here at once; one is built by `lab up` alone, for that takes minutes. */
export function imageAvailability(dir: string): Availability {
  const able = buildAvailability(dir);
  if (!able.available || builtImage(dir) !== undefined) return able;
  return {
    available: false,
    why: 'the lab VM of this version has not been built',
    remedy: 'plugpull lab up (takes some minutes, once)',
  };
}

/** Whether this machine has what a lab VM needs, and its building if it has not been built. */
export function buildAvailability(dir: string): Availability {
  const no = (why: string, remedy: string): Availability => ({ available: false, why, remedy });
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    return no(
      `it needs Linux on x64; this is ${process.platform} on ${process.arch}`,
      'run it on such a machine',
    );
  }
  const builders = builtImage(dir) === undefined ? BUILDERS : [];
  // Who is not root makes the root of Debian in a user namespace.
  const namespace =
    process.getuid?.() === 0 || builders.length === 0 ? [] : [['newuidmap', 'uidmap'] as const];
  const missing = [[QEMU, 'qemu-system-x86'] as const, ...builders, ...namespace].filter(
    ([program]) => findProgram(program) === undefined,
  );
  if (missing.length === 0) return { available: true };
  const packages = [...new Set(missing.map(([, name]) => name))].join(' ');
  return no(
    `${missing.map(([program]) => program).join(', ')} not installed`,
    `apt-get install --no-install-recommends ${packages}`,
  );
}

/** Names the content of an image; another kit, Node or size makes another one. */
export function imageKey(): string {
  // A saved state is read by the very QEMU that wrote it.
  const programs = [process.execPath, findProgram(QEMU)].map((path) => path && statSync(path));
  const versions = programs.map((program) => program && [program.size, program.mtimeMs]);
  const hash = createHash('sha256').update(
    JSON.stringify([SUITE, KERNEL_PACKAGE, PACKAGES, LEFT_OUT, ROOT_BYTES, DATA_BYTES, MEMORY_MIB, versions]),
  );
  for (const name of LAB_FILES) hash.update(readFileSync(labFile(name)));
  return hash.digest('hex').slice(0, 16);
}

/** The image of this kit below `dir`; undefined when it has not been built. */
export function builtImage(dir: string): LabImage | undefined {
  const key = imageKey();
  const folder = join(dir, key);
  try {
    const { accelerator } = JSON.parse(readFileSync(join(folder, 'built.json'), 'utf8')) as LabImage;
    return { files: filesIn(folder), accelerator, key };
  } catch {
    return undefined;
  }
}

/**
 * The image of this kit, built when it has not been: a Debian root with an engine, a first boot, its saved state.
 * @throws Error with the words of what failed.
 */
export async function labImage(plan: BuildPlan): Promise<LabImage> {
  const there = builtImage(plan.dir);
  if (there !== undefined) return there;
  const key = imageKey();
  const folder = join(plan.dir, `${key}.${process.pid}`);
  const directory = { kind: 'directory', path: folder } as const;
  plan.registry.made(directory);
  try {
    mkdirSync(folder, { recursive: true });
    await build(folder, plan);
    try {
      renameSync(folder, join(plan.dir, key));
    } catch (error) {
      // Somebody else was quicker; theirs is as good.
      if (builtImage(plan.dir) === undefined) throw error;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
    plan.registry.gone(directory);
  }
  const image = builtImage(plan.dir);
  if (image === undefined) throw new Error(`the image of the lab VM in ${plan.dir} cannot be read`);
  return image;
}

async function build(folder: string, plan: BuildPlan): Promise<void> {
  const files = filesIn(folder);
  const clock = stopwatch(plan.say);
  await debianRoot(folder, files);
  clock('Debian root');
  const accelerator = await tryKvm(folder, files, plan);
  const dir = join(folder, 'first');
  const machine = await Machine.start(
    { files, accelerator, start: 'first', dir, registry: plan.registry },
    FIRST_BOOT_TIMEOUT_MS,
  );
  try {
    await waitForEngine(machine.address.enginePort);
    clock(`first boot (${accelerator})`);
    await plan.fill(machine.address.enginePort);
    clock('images of containers');
    // Pages that can be read again need not be in the state.
    await machine.agent.run(['sh', '-c', 'sync; echo 3 > /proc/sys/vm/drop_caches'], TOOL_TIMEOUT_MS);
    await machine.save();
  } finally {
    await machine.stop();
    rmSync(dir, { recursive: true, force: true });
  }
  clock('saved state');
  writeFileSync(join(folder, 'built.json'), `${JSON.stringify({ accelerator })}\n`);
}

async function debianRoot(folder: string, files: MachineFiles): Promise<void> {
  const tar = join(folder, 'root.tar');
  const upload = (from: string, to: string) => `--customize-hook=upload ${quoted(from)} ${to}`;
  const modules = FIRST_MODULES.map((name) => `-name ${name}.ko`).join(' -o ');
  // The package of the kernel is unpacked, not installed: installing it would make a first root of its own.
  const kernel = [
    'cd /lab && apt-get download',
    `$(apt-cache depends --important ${KERNEL_PACKAGE} | sed -n 's/^ *Depends: *//p' | head -n 1)`,
    '&& dpkg-deb -x linux-image-*.deb kernel && rm linux-image-*.deb',
    '&& mv kernel/lib/modules /usr/lib/modules && mv kernel/boot/vmlinuz-* /lab/vmlinuz && rm -r kernel',
    '&& depmod $(ls /usr/lib/modules)',
    `&& mkdir modules && find /usr/lib/modules \\( ${modules} \\) -exec cp {} modules \\;`,
  ].join(' ');
  await tool('mmdebstrap', MMDEBSTRAP_TIMEOUT_MS, [
    '--variant=minbase',
    `--include=${PACKAGES.join(',')}`,
    '--aptopt=Acquire::Languages "none"',
    ...LEFT_OUT.map((path) => `--dpkgopt=path-exclude=${path}`),
    '--customize-hook=mkdir -p "$1/lab"',
    `--customize-hook=chroot "$1" sh -c ${quoted(kernel)}`,
    upload(labFile('init'), '/lab/init'),
    upload(labFile('agent.mjs'), '/lab/agent.mjs'),
    upload(process.execPath, '/usr/local/bin/node'),
    '--customize-hook=chmod 755 "$1/lab/init" "$1/usr/local/bin/node"',
    '--format=tar',
    SUITE,
    tar,
  ]);
  await tool('tar', TOOL_TIMEOUT_MS, [
    '-C',
    folder,
    '-xf',
    tar,
    './lab/vmlinuz',
    './lab/modules',
    './usr/bin/busybox',
  ]);
  renameSync(join(folder, 'lab/vmlinuz'), files.kernel);
  writeFileSync(files.initrd, firstRoot(folder));
  for (const name of ['lab', 'usr']) rmSync(join(folder, name), { recursive: true });
  await filesystem(tar, files.root);
  rmSync(tar);
  writeFileSync(files.data, '');
  truncateSync(files.data, DATA_BYTES);
}

/** What the kernel starts with: a shell and the drivers of the disk. */
function firstRoot(folder: string): Buffer {
  const modules = FIRST_MODULES.map((name) => ({
    path: `modules/${name}.ko`,
    data: readFileSync(join(folder, `lab/modules/${name}.ko`)),
  }));
  const archive = cpioArchive([
    ...['bin', 'dev', 'modules', 'root'].map((path) => ({ path })),
    { path: 'bin/busybox', data: readFileSync(join(folder, 'usr/bin/busybox')) },
    { path: 'init', data: readFileSync(labFile('initramfs-init')) },
    ...modules,
  ]);
  return gzipSync(archive, { level: 1 });
}

/** The root as a disk, made without being root: genext2fs reads the archive and knows only the oldest features. */
async function filesystem(tar: string, disk: string): Promise<void> {
  const blocks = Math.ceil((statSync(tar).size * 1.1 + SPARE_BYTES) / BLOCK_BYTES);
  const bytesPerInode = ['-i', '16384'];
  await tool('genext2fs', TOOL_TIMEOUT_MS, [
    '-B',
    `${BLOCK_BYTES}`,
    '-b',
    `${blocks}`,
    ...bytesPerInode,
    '-a',
    tar,
    disk,
  ]);
  // `filetype` above all, without which overlayfs does not work; the check puts the types in.
  await tool('tune2fs', TOOL_TIMEOUT_MS, [
    ...[
      '-O',
      'has_journal,extent,filetype,dir_index,sparse_super,large_file,uninit_bg,dir_nlink,extra_isize',
    ],
    disk,
  ]);
  await run('e2fsck', ['-fyD', disk], { timeout: TOOL_TIMEOUT_MS, maxBuffer: MOST_WORDS_BYTES }).catch(
    (error: unknown) => {
      // 1: something was repaired, which is what it is for.
      if (!(error instanceof Error && 'code' in error && error.code === 1)) throw error;
    },
  );
  truncateSync(disk, ROOT_BYTES);
  await tool('resize2fs', TOOL_TIMEOUT_MS, [disk]);
}

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
        speaksWithinMs: KVM_KERNEL_MS,
      },
      KVM_TRIAL_MS,
    );
    await machine.stop();
    return 'kvm';
  } catch {
    plan.say('lab: /dev/kvm is there and does not boot a kernel: going on in software');
    return 'tcg';
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

function filesIn(folder: string): MachineFiles {
  const file = (name: string) => join(folder, name);
  return {
    kernel: file('vmlinuz'),
    initrd: file('initrd.gz'),
    root: file('root.img'),
    data: file('data.img'),
    state: file('state'),
  };
}

function labFile(name: string): string {
  return join(packageRoot(), 'docker/lab', name);
}

async function tool(program: string, timeoutMs: number, args: readonly string[]): Promise<void> {
  try {
    await run(program, args, { timeout: timeoutMs, maxBuffer: MOST_WORDS_BYTES });
  } catch (error) {
    const words = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : String(error);
    throw new Error(`${program}: ${words.split('\n').slice(-4).join(' | ')}`, { cause: error });
  }
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Says how long each part took. */
function stopwatch(say: (line: string) => void): (part: string) => void {
  let lastMs = performance.now();
  return (part) => {
    const nowMs = performance.now();
    say(`lab: ${part}: ${((nowMs - lastMs) / 1000).toFixed(1)} s`);
    lastMs = nowMs;
  };
}
