import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import { commandLine } from '../host/command-line.js';
import type { ExpectedSystem } from './expected.js';
import { type InstallHost, installSystem, isInstalled, remedy } from './install.js';

const PROGRAM = '/usr/sbin/no-such-server';
const system = (more: Partial<ExpectedSystem> = {}): ExpectedSystem => ({
  name: 'example',
  program: PROGRAM,
  package: 'example-server',
  unpack: [],
  runs: [],
  ...more,
});

/** Makes an empty directory for packages, and sets the variables of the environment for one test. */
function packages(t: Test, noInstall = '0'): string {
  const dir = mkdtempSync(join(tmpdir(), 'plugpull-packages-'));
  const before = { ...process.env };
  Object.assign(process.env, { PLUGPULL_PACKAGES: join(dir, 'packages'), PLUGPULL_NO_INSTALL: noInstall });
  t.teardown(() => {
    for (const name of ['PLUGPULL_PACKAGES', 'PLUGPULL_NO_INSTALL']) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
    rmSync(dir, { recursive: true, force: true });
  });
  return join(dir, 'packages');
}

/** A machine on which every command succeeds, except those that contain a word of `failing`. */
function host(failing: readonly string[] = [], canInstall = true) {
  const commands: string[] = [];
  const run: InstallHost['run'] = (command, cwd) => {
    const line = command.join(' ').replaceAll(/\S*\/(?=\S)/g, '');
    commands.push(line);
    if (failing.some((word) => line.includes(word))) return { ok: false, text: 'first\nE: no network\n' };
    if (command[1] === 'download') writeFileSync(join(cwd ?? '', 'example.deb'), '');
    if (command[0] === 'dpkg-deb') {
      const program = join(command[3] ?? '', PROGRAM);
      mkdirSync(dirname(program), { recursive: true });
      writeFileSync(program, '');
    }
    return { ok: true, text: '' };
  };
  return { commands, host: { canInstall, run } };
}

t.test('a missing package is installed with a report, and never replaces another', async (t) => {
  packages(t);
  const { commands, host: machine } = host();
  const lines: string[] = [];
  installSystem(system(), (line) => lines.push(line), machine);
  const command = 'apt-get install -y -qq --no-install-recommends --no-remove example-server';
  t.strictSame(commands, [command]);
  t.strictSame(lines, [`example: ${command} (PLUGPULL_NO_INSTALL=1 turns this off)`]);
});

t.test('packages that conflict with others are unpacked, and count as installed then', async (t) => {
  const dir = packages(t);
  const { commands, host: machine } = host();
  const lines: string[] = [];
  const example = system({ unpack: ['example-server', 'libexample1'] });
  t.notOk(isInstalled(example));
  installSystem(example, (line) => lines.push(line), machine);
  t.strictSame(commands, ['apt-get download -qq example-server libexample1', 'dpkg-deb -x example.deb root']);
  t.match(lines, [/^example: unpacking example-server, libexample1 in .*example \(PLUGPULL_NO_INSTALL=1/]);
  t.ok(isInstalled(example));
  t.strictSame(readdirSync(dir), ['example'], 'nothing else is left');
  installSystem(example, () => {}, machine);
  t.equal(commands.length, 2, 'an installed system is left alone');
});

t.test('a failure is reported in one line, and leaves no half-filled folder', async (t) => {
  const dir = packages(t);
  for (const [failing, unpack] of [
    ['install', []],
    ['download', ['example-server']],
    ['dpkg-deb', ['example-server']],
  ] as const) {
    const { commands, host: machine } = host([failing]);
    const lines: string[] = [];
    const example = system({ unpack: [...unpack] });
    installSystem(example, (line) => lines.push(line), machine);
    t.match(lines.at(-1), new RegExp(`^example: .*${failing}.* failed: E: no network$`));
    t.equal(commands.includes('apt-get update -qq'), failing !== 'dpkg-deb');
    t.notOk(isInstalled(example), failing);
  }
  t.strictSame(readdirSync(dir), []);
});

t.test('nothing is installed without root or with PLUGPULL_NO_INSTALL=1', async (t) => {
  const { commands, host: withoutRoot } = host([], false);
  packages(t);
  installSystem(system(), t.fail, withoutRoot);
  await t.test('PLUGPULL_NO_INSTALL=1', async (t) => {
    packages(t, '1');
    installSystem(system(), t.fail, { ...withoutRoot, canInstall: true });
  });
  t.strictSame(commands, []);
  t.equal(remedy(system()), 'as root: apt-get install example-server');
  t.equal(remedy(system({ unpack: ['x'] })), `as root on Debian: ${commandLine('systems', 'example')}`);
});
