import t from 'tap';
import { mountCommand, mountOptionsOf } from './filesystem.js';
import { limitsOf, whyNotAllowed } from './mount-options.js';

t.test('options that choose how a disk writes are allowed', async (t) => {
  for (const options of [
    '',
    'commit=1,data=journal',
    'nobarrier,nodelalloc',
    'barrier=0',
    'errors=remount-ro',
    'max_batch_time=0,journal_async_commit',
  ])
    t.equal(whyNotAllowed('ext4', options), undefined, options);
  for (const options of ['logbsize=256k', 'wsync', 'allocsize=64m,inode64'])
    t.equal(whyNotAllowed('xfs', options), undefined, options);
});

t.test('all other options are refused in one line that names the option', async (t) => {
  const cases: ['ext4' | 'xfs', string, RegExp][] = [
    ['ext4', 'suid', /expected options that ext4 can be mounted with: acl, .*; got "suid"$/],
    ['ext4', 'commit=1,dev', /got "dev"$/],
    ['ext4', 'exec', /got "exec"$/],
    ['ext4', 'ro', /got "ro"$/],
    ['ext4', 'errors=panic', /errors=VALUE with a value of the form .*; got "errors=panic"$/],
    ['ext4', 'journal_path=/dev/sda', /got "journal_path=\/dev\/sda"$/],
    ['ext4', 'commit', /commit=VALUE/],
    ['ext4', 'commit=1x', /got "commit=1x"$/],
    ['ext4', 'nobarrier=1', /nobarrier without a value/],
    ['ext4', 'data=journal,,commit=1', /got ""$/],
    ['ext4', 'commit=1\nsuid', /got "commit=1\\nsuid"$/],
    ['ext4', 'constructor', /got "constructor"$/],
    ['ext4', 'logbufs=8', /got "logbufs=8"$/],
    ['xfs', 'logdev=/dev/sda', /expected options that xfs .*; got "logdev=\/dev\/sda"$/],
    ['xfs', 'x-mount.mkdir', /got "x-mount.mkdir"$/],
  ];
  for (const [type, options, why] of cases) {
    t.match(whyNotAllowed(type, options), why, options);
    t.notMatch(whyNotAllowed(type, options), /\n/);
    t.throws(() => mountOptionsOf({ type, mountOptions: options }), why);
  }
});

t.test('no mount gives rights, and the limits come after all other options', async (t) => {
  t.same(limitsOf({}), ['nosuid', 'nodev']);
  t.same(limitsOf({ noexec: true, readOnly: true }), ['nosuid', 'nodev', 'noexec', 'ro']);
  const ext4 = { type: 'ext4', mountOptions: 'commit=1' } as const;
  t.same(mountCommand(ext4, '/dev/loop0', '/mnt', { noexec: true }), [
    ...[
      'mount',
      '-t',
      'ext4',
      '-o',
      'noatime,nodiscard,errors=remount-ro,commit=1,nosuid,nodev,noexec',
      '/dev/loop0',
      '/mnt',
    ],
  ]);
  t.match(mountCommand(ext4, '/dev/loop0', '/mnt'), { 4: /,nosuid,nodev$/ });
});

t.test('an ext4 disk never panics: without the option, its image would say what an error does', async (t) => {
  const optionsOf = (type: 'ext4' | 'xfs', mountOptions: string) =>
    mountOptionsOf({ type, mountOptions })
      .split(',')
      .filter((option) => option.startsWith('errors='));
  t.same(optionsOf('ext4', ''), ['errors=remount-ro']);
  t.same(optionsOf('ext4', 'commit=1,data_err=abort'), ['errors=remount-ro']);
  t.same(optionsOf('ext4', 'commit=1,errors=continue'), ['errors=continue']);
  t.same(optionsOf('xfs', ''), []);
});
