import { execFile } from 'node:child_process';
import { readFileSync, renameSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { gzipSync } from 'node:zlib';
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
  'busybox-static',
];
const EXCLUDED_PATHS = ['/usr/share/man/*', '/usr/share/doc/*', '/usr/share/locale/*', '/usr/share/info/*'];
/** Drivers of the machine's own disk, in the order in which they are loaded; the first program has the same list. */
const INITRAMFS_MODULES = [
  'virtio_ring',
  'virtio',
  'virtio_pci_legacy_dev',
  'virtio_pci_modern_dev',
  'virtio_pci',
  'virtio_blk',
];
const LAB_FILES = ['init', 'initramfs-init', 'agent.mjs'];

/** Both disks take room only where something was written. */
const ROOT_DISK_BYTES = 6 * 2 ** 30;
const DATA_DISK_BYTES = 2 ** 30;
const BLOCK_BYTES = 4096;
const ROOT_SPARE_BYTES = 300 * 2 ** 20;
const MMDEBSTRAP_TIMEOUT_MS = 600_000;
const TOOL_TIMEOUT_MS = 120_000;
/** The check names every directory entry that it changes. */
const MAX_OUTPUT_BYTES = 64 * 2 ** 20;

/** All that decides what is on the disks, beside the files of the kit that go onto them. */
export const IMAGE_INPUTS = [
  SUITE,
  KERNEL_PACKAGE,
  PACKAGES,
  EXCLUDED_PATHS,
  ROOT_DISK_BYTES,
  DATA_DISK_BYTES,
] as const;

/** Files of the kit that go onto the disks. */
export const labFiles = (): string[] => LAB_FILES.map(labFile);

/**
 * Makes a machine's disks in `folder`: Debian with a kernel and an engine, and an empty one for data; needs no root.
 * @throws Error with the words of the program that failed.
 */
export async function makeDisks(folder: string, files: MachineFiles): Promise<void> {
  const tar = join(folder, 'root.tar');
  const upload = (from: string, to: string) => `--customize-hook=upload ${shellQuote(from)} ${to}`;
  const modules = INITRAMFS_MODULES.map((name) => `-name ${name}.ko`).join(' -o ');
  // The package of the kernel is unpacked, not installed: installing it would make a first root of its own.
  const kernel = [
    'cd /lab && apt-get download',
    `$(apt-cache depends --important ${KERNEL_PACKAGE} | sed -n 's/^ *Depends: *//p' | head -n 1)`,
    '&& dpkg-deb -x linux-image-*.deb kernel && rm linux-image-*.deb',
    '&& mv kernel/lib/modules /usr/lib/modules && mv kernel/boot/vmlinuz-* /lab/vmlinuz && rm -r kernel',
    '&& depmod $(ls /usr/lib/modules)',
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
    './usr/bin/busybox',
  ]);
  renameSync(join(folder, 'lab/vmlinuz'), files.kernel);
  writeFileSync(files.initrd, makeInitramfs(folder));
  for (const name of ['lab', 'usr']) rmSync(join(folder, name), { recursive: true });
  await makeRootDisk(tar, files.root);
  rmSync(tar);
  writeFileSync(files.data, '');
  truncateSync(files.data, DATA_DISK_BYTES);
}

/** What the kernel starts with: a shell and the drivers of the disk. */
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

/** The root as a disk, made without being root: genext2fs reads the archive and knows only the oldest features. */
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
  // `filetype` above all, without which overlayfs does not work; the check puts the types in.
  await runTool('tune2fs', TOOL_TIMEOUT_MS, [
    ...[
      '-O',
      'has_journal,extent,filetype,dir_index,sparse_super,large_file,uninit_bg,dir_nlink,extra_isize',
    ],
    disk,
  ]);
  await run('e2fsck', ['-fyD', disk], { timeout: TOOL_TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES }).catch(
    (error: unknown) => {
      // 1: something was repaired, which is what it is for.
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

/** One entry of an archive; a directory has no data. */
interface CpioEntry {
  path: string;
  data?: Buffer;
}

/** An archive in the `newc` format, which the kernel unpacks as its first root; directories go before what is in them. */
export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.flatMap(({ path, data }, index) => encodeEntry(path, data, index + 1));
  return Buffer.concat([...parts, ...encodeEntry('TRAILER!!!', Buffer.alloc(0), 0)]);
}

function encodeEntry(path: string, data: Buffer | undefined, inode: number): Buffer[] {
  const mode = data === undefined ? DIRECTORY : REGULAR;
  const sizeBytes = data?.length ?? 0;
  const nameBytes = Buffer.byteLength(path) + 1;
  // inode, mode, uid, gid, links, mtime, size, device and its special twin (major, minor each), name's length, check
  const numbers = [inode, mode, 0, 0, 1, 0, sizeBytes, 0, 0, 0, 0, nameBytes, 0];
  const head = MAGIC + numbers.map((number) => number.toString(16).padStart(8, '0')).join('');
  return [padToFour(Buffer.from(`${head}${path}\0`)), padToFour(data ?? Buffer.alloc(0))];
}

/** Every head and every body ends on a multiple of four. */
function padToFour(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)]);
}
