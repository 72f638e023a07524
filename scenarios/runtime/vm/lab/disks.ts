import { execFile } from 'node:child_process';
import { readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
import { removeTree } from '../../../../faults/files/remove-tree.js';
import { shellQuote } from '../../../host/shell.js';
import { packageRoot } from '../../../host/version.js';
import type { MachineFiles } from './machine.js';

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
  'nftables',
  'busybox-static',
];
const EXCLUDED_PATHS = ['/usr/share/man/*', '/usr/share/doc/*', '/usr/share/locale/*', '/usr/share/info/*'];
/**
 * Drivers of the lab VM's own disk, in load order. Keep the list equal to that of
 * `docker/lab/initramfs-init`.
 */
const INITRAMFS_MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'virtio_blk',
];
const LAB_FILES = ['init', 'initramfs-init', 'agent.mjs'];

/** Size of the root disk. Its image takes space only where something was written. */
const ROOT_DISK_BYTES = 6 * 2 ** 30;
/** Size of the data disk. Its image takes space only where something was written. */
const DATA_DISK_BYTES = 2 ** 30;
const BLOCK_BYTES = 4096;
const ROOT_SPARE_BYTES = 300 * 2 ** 20;
const MMDEBSTRAP_TIMEOUT_MS = 600_000;
const TOOL_TIMEOUT_MS = 120_000;
/** Upper bound of a tool's output: e2fsck prints every directory entry that it changes. */
const MAX_OUTPUT_BYTES = 64 * 2 ** 20;

/** Everything that determines the content of the disks, except the kit's files on them. */
export const IMAGE_INPUTS = [
  SUITE,
  KERNEL_PACKAGE,
  PACKAGES,
  EXCLUDED_PATHS,
  ROOT_DISK_BYTES,
  DATA_DISK_BYTES,
] as const;

/** Returns the paths of the kit's files that go onto the disks. */
export const labFiles = (): string[] => LAB_FILES.map(labFile);

/**
 * Makes the disks of a lab VM in `folder`: one with Debian, a kernel and a container engine, and an empty one
 * for data. It needs no root privileges.
 * @returns the version of the kernel.
 * @throws Error with the last lines of the program that failed.
 */
export async function makeDisks(folder: string, files: MachineFiles): Promise<string> {
  const tar = join(folder, 'root.tar');
  const upload = (from: string, to: string) => `--customize-hook=upload ${shellQuote(from)} ${to}`;
  const modules = INITRAMFS_MODULES.map((name) => `-name ${name}.ko`).join(' -o ');
  // Unpack the kernel's package and do not install it: an installation would also build an initial root file
  // system.
  const kernel = [
    'cd /lab && apt-get download',
    `$(apt-cache depends --important ${KERNEL_PACKAGE} | sed -n 's/^ *Depends: *//p' | head -n 1)`,
    '&& dpkg-deb -x linux-image-*.deb kernel && rm linux-image-*.deb',
    '&& mv kernel/lib/modules /usr/lib/modules && mv kernel/boot/vmlinuz-* /lab/vmlinuz && rm -r kernel',
    '&& ls /usr/lib/modules > kernel-version && depmod $(cat kernel-version)',
    `&& mkdir modules && find /usr/lib/modules \\( ${modules} \\) -exec cp {} modules \\;`,
  ].join(' ');
  await runTool('mmdebstrap', MMDEBSTRAP_TIMEOUT_MS, [
    '--variant=minbase',
    `--include=${PACKAGES.join(',')}`,
    '--aptopt=Acquire::Languages "none"',
    ...EXCLUDED_PATHS.map((path) => `--dpkgopt=path-exclude=${path}`),
    '--customize-hook=mkdir -p "$1/lab"',
    `--customize-hook=chroot "$1" sh -c ${shellQuote(kernel)}`,
    upload(labFile('init'), '/lab/init'),
    upload(labFile('agent.mjs'), '/lab/agent.mjs'),
    upload(process.execPath, '/usr/local/bin/node'),
    '--customize-hook=chmod 755 "$1/lab/init" "$1/usr/local/bin/node"',
    '--format=tar',
    SUITE,
    tar,
  ]);
  await runTool('tar', TOOL_TIMEOUT_MS, [
    '-C',
    folder,
    '-xf',
    tar,
    './lab/vmlinuz',
    './lab/modules',
    './lab/kernel-version',
    './usr/bin/busybox',
  ]);
  const kernelVersion = readFileSync(join(folder, 'lab/kernel-version'), 'utf8').trim();
  renameSync(join(folder, 'lab/vmlinuz'), files.kernel);
  writeFileSync(files.initrd, makeInitramfs(folder));
  for (const name of ['lab', 'usr']) removeTree(join(folder, name));
  await makeRootDisk(tar, files.root);
  rmSync(tar);
  writeFileSync(files.data, '');
  truncateSync(files.data, DATA_DISK_BYTES);
  return kernelVersion;
}

/** Makes the initial root file system of the kernel: a shell and the drivers of the disk. */
function makeInitramfs(folder: string): Buffer {
  const modules = INITRAMFS_MODULES.map((name) => ({
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

/**
 * Makes the root disk from an archive, without root privileges: genext2fs reads the archive, but it supports
 * only the oldest features of the filesystem.
 */
async function makeRootDisk(tar: string, disk: string): Promise<void> {
  const blocks = Math.ceil((statSync(tar).size * 1.1 + ROOT_SPARE_BYTES) / BLOCK_BYTES);
  const bytesPerInode = ['-i', '16384'];
  await runTool('genext2fs', TOOL_TIMEOUT_MS, [
    '-B',
    `${BLOCK_BYTES}`,
    '-b',
    `${blocks}`,
    ...bytesPerInode,
    '-a',
    tar,
    disk,
  ]);
  // Add the newer features. overlayfs does not work without `filetype`; e2fsck then fills the types in.
  await runTool('tune2fs', TOOL_TIMEOUT_MS, [
    ...[
      '-O',
      'has_journal,extent,filetype,dir_index,sparse_super,large_file,uninit_bg,dir_nlink,extra_isize',
    ],
    disk,
  ]);
  await run('e2fsck', ['-fyD', disk], { timeout: TOOL_TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES }).catch(
    (error: unknown) => {
      // Code 1 means that e2fsck has repaired something, which is its purpose here.
      if (!(error instanceof Error && 'code' in error && error.code === 1)) throw error;
    },
  );
  truncateSync(disk, ROOT_DISK_BYTES);
  await runTool('resize2fs', TOOL_TIMEOUT_MS, [disk]);
}

function labFile(name: string): string {
  return join(packageRoot(), 'docker/lab', name);
}

async function runTool(program: string, timeoutMs: number, args: readonly string[]): Promise<void> {
  try {
    await run(program, args, { timeout: timeoutMs, maxBuffer: MAX_OUTPUT_BYTES });
  } catch (error) {
    const stderr = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : String(error);
    throw new Error(`${program}: ${stderr.split('\n').slice(-4).join(' | ')}`, { cause: error });
  }
}

const MAGIC = '070701';
const REGULAR = 0o100755;
const DIRECTORY = 0o040755;

/** One entry of an archive. A directory has no `data`. */
interface CpioEntry {
  path: string;
  data?: Buffer;
}

/**
 * Encodes an archive in the `newc` format, which the kernel unpacks as its initial root file system. A
 * directory must come before its content.
 */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.flatMap(({ path, data }, index) => encodeEntry(path, data, index + 1));
  return Buffer.concat([...parts, ...encodeEntry('TRAILER!!!', Buffer.alloc(0), 0)]);
}

function encodeEntry(path: string, data: Buffer | undefined, inode: number): Buffer[] {
  const mode = data === undefined ? DIRECTORY : REGULAR;
  const sizeBytes = data?.length ?? 0;
  const nameBytes = Buffer.byteLength(path) + 1;
  // Fields: inode, mode, uid, gid, links, mtime, size, device (major, minor), special device (major, minor),
  // length of the name, checksum.
  const numbers = [inode, mode, 0, 0, 1, 0, sizeBytes, 0, 0, 0, 0, nameBytes, 0];
  const head = MAGIC + numbers.map((number) => number.toString(16).padStart(8, '0')).join('');
  return [padToFour(Buffer.from(`${head}${path}\0`)), padToFour(data ?? Buffer.alloc(0))];
}

/** Pads to a multiple of four bytes, where every header and every body must end. */
function padToFour(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}
