// First process of the image with all engines. It runs the kit, passes signals and the exit code on, and gives what the
// kit has written to the mounted folder to the owner of that folder.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, lchownSync, lstatSync, readdirSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const FOLDER = '/work';
/** Number of loop devices that are made. The kernel gives out the lowest free number, and the host may use some. */
const LOOP_DEVICES = 64;
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'];
const program = fileURLToPath(new URL('../dist/scenarios/cli/main.js', import.meta.url));
const startedMs = Date.now();

// The /dev of a container has no loop devices, and the kernel makes none there. Where the container may not have them, this
// fails, and power cuts are reported as not available.
if (existsSync('/dev/loop-control') && process.getuid() === 0) {
  const missing = Array.from({ length: LOOP_DEVICES }, (_, number) => number).filter(
    (number) => !existsSync(`/dev/loop${number}`),
  );
  const make = 'for number do mknod -m 660 /dev/loop$number b 7 $number || exit; done';
  spawnSync('sh', ['-c', make, 'sh', ...missing.map(String)], { stdio: 'ignore' });
}

// In a session of its own: a terminal sends Ctrl-C to all processes of a session, and the kit would get it twice. A second
// one means that the kit must end at once.
const kit = spawn(process.execPath, [program, ...process.argv.slice(2)], {
  stdio: 'inherit',
  detached: true,
});
for (const signal of SIGNALS) process.on(signal, () => kit.kill(signal));
kit.on('error', (error) => {
  process.stderr.write(`plugpull: ${error.message}\n`);
  process.exit(4);
});
kit.on('exit', (code, signal) => {
  try {
    const { uid, gid, dev } = lstatSync(FOLDER);
    if (process.getuid() === 0 && uid !== 0) giveTo(FOLDER, { uid, gid, dev });
  } catch (error) {
    process.stderr.write(`plugpull: files in ${FOLDER} stay root's: ${error.message}\n`);
  }
  process.exit(code ?? 128 + constants.signals[signal]);
});

/** Gives root's files that are newer than this process to the owner, and follows no link and no mount. */
function giveTo(folder, owner) {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    const stats = lstatSync(path, { throwIfNoEntry: false });
    if (stats === undefined || stats.dev !== owner.dev) continue;
    if (stats.uid === 0 && stats.ctimeMs >= startedMs) lchownSync(path, owner.uid, owner.gid);
    if (entry.isDirectory()) giveTo(path, owner);
  }
}
