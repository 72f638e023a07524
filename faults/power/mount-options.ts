/** Types of filesystems that the kit makes and mounts. */
export type FilesystemType = 'ext4' | 'xfs';

const FLAG = null;
const NUMBER = /^\d{1,10}$/;
const SIZE = /^\d{1,10}[kmg]?$/i;

/** Options that a user, or a bundle of a stranger, may mount with: names, and the form of their values. */
const ALLOWED: Readonly<Record<FilesystemType, Readonly<Record<string, RegExp | null>>>> = {
  ext4: {
    ...{ commit: NUMBER, data: /^(journal|ordered|writeback)$/, data_err: /^(abort|ignore)$/ },
    // Not `panic`: a damaged disk of a stranger would stop this machine.
    errors: /^(continue|remount-ro)$/,
    ...{ barrier: /^[01]$/, nobarrier: FLAG, delalloc: FLAG, nodelalloc: FLAG },
    ...{ auto_da_alloc: /^[01]$/, noauto_da_alloc: FLAG },
    ...{
      journal_checksum: FLAG,
      nojournal_checksum: FLAG,
      journal_async_commit: FLAG,
      journal_ioprio: /^[0-7]$/,
    },
    ...{ max_batch_time: NUMBER, min_batch_time: NUMBER, stripe: NUMBER, inode_readahead_blks: NUMBER },
    ...{ dioread_lock: FLAG, dioread_nolock: FLAG, block_validity: FLAG, noblock_validity: FLAG },
    ...{ max_dir_size_kb: NUMBER, init_itable: NUMBER, noinit_itable: FLAG, i_version: FLAG },
    ...{ acl: FLAG, noacl: FLAG, user_xattr: FLAG, nouser_xattr: FLAG, discard: FLAG, nodiscard: FLAG },
  },
  xfs: {
    ...{ allocsize: SIZE, logbufs: NUMBER, logbsize: SIZE, sunit: NUMBER, swidth: NUMBER },
    ...{
      wsync: FLAG,
      inode32: FLAG,
      inode64: FLAG,
      largeio: FLAG,
      nolargeio: FLAG,
      noalign: FLAG,
      swalloc: FLAG,
    },
    ...{
      attr2: FLAG,
      noattr2: FLAG,
      ikeep: FLAG,
      noikeep: FLAG,
      filestreams: FLAG,
      discard: FLAG,
      nodiscard: FLAG,
    },
  },
};

/**
 * Returns what is wrong with mount options as after `mount -o`; undefined when every one is allowed. An option
 * that mount(8) or the kernel understands may do more than choose how a disk writes: `suid` and `dev` give local
 * users rights, `logdev` and `journal_path` open another device, `errors=panic` stops the machine.
 */
export function whyNotAllowed(type: FilesystemType, mountOptions: string): string | undefined {
  if (mountOptions === '') return undefined;
  const allowed = ALLOWED[type];
  for (const option of mountOptions.split(',')) {
    const [, name = '', , value] = /^([^=]*)(=(.*))?$/s.exec(option) ?? [];
    const form = Object.hasOwn(allowed, name) ? allowed[name] : undefined;
    if (form === undefined)
      return `expected options that ${type} can be mounted with: ${Object.keys(allowed).sort().join(', ')}; got ${JSON.stringify(option)}`;
    if (form === null ? value !== undefined : value === undefined || !form.test(value))
      return `expected ${form === null ? `${name} without a value` : `${name}=VALUE with a value of the form ${form.source.replaceAll(/^\^|\$$/g, '')}`}; got ${JSON.stringify(option)}`;
  }
  return undefined;
}

/** What the files of a mounted disk may do, in addition to what they never may. */
export interface MountLimits {
  /** True forbids to start programs from the disk: nobody vouches for those of another's bundle. */
  noexec?: boolean;
  /** True mounts the disk for reading. The kernel still replays its journal. */
  readOnly?: boolean;
}

/**
 * Returns the options that every mount of the kit has: a setuid program or a device node in an image, which any
 * local user might reach, is then only a file.
 */
export function limitsOf({ noexec = false, readOnly = false }: MountLimits): string[] {
  return ['nosuid', 'nodev', ...(noexec ? ['noexec'] : []), ...(readOnly ? ['ro'] : [])];
}
