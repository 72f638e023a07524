import { join } from 'node:path';
import type { Target } from '../../conformance/target-file/definition.js';
import { expandCommand, portNames } from '../../conformance/target-file/placeholders.js';
import { freePort } from '../host/ports.js';
import { shellWord } from '../host/shell.js';

/**
 * How to start the services of a target on some data by hand, as lines for a terminal: each as it is, and under a
 * debugger. What a target pushes to goes nowhere: its recovery is to be looked at, not its deliveries.
 */
export async function byHand(target: Target, dataDir: string): Promise<string[]> {
  const ports = new Map<string, number>();
  for (const name of portNames(target)) ports.set(name, await freePort(new Set(ports.values())));
  const nowhere = `127.0.0.1:${await freePort(new Set(ports.values()))}`;
  const values = { dir: target.dir, node: process.execPath, data: dataDir, sink: nowhere, ports };
  const lines = ["start the target's recovery by hand, each service in a terminal of its own:"];
  for (const [name, { command }] of Object.entries(target.services)) {
    const words = expandCommand(command, values);
    lines.push(`  ${name}: ${words.map(shellWord).join(' ')}`);
    lines.push(`  ${' '.repeat(name.length)}  under a debugger: ${debugged(words).map(shellWord).join(' ')}`);
  }
  const restore = target.crashStates?.restore;
  if (restore !== undefined) {
    const queue = join(dataDir, target.crashStates?.queue ?? '.');
    const request = shellWord(JSON.stringify({ queue }));
    const words = expandCommand(restore, values);
    lines.push(`or let its program restore: echo ${request} | ${words.map(shellWord).join(' ')}`);
  }
  if (target.verify !== undefined) {
    lines.push(`and its own check: ${expandCommand(target.verify, values).map(shellWord).join(' ')}`);
  }
  return lines;
}

function debugged([program = '', ...args]: readonly string[]): string[] {
  if (program === process.execPath || /(^|\/)node(js)?$/.test(program))
    return [program, '--inspect-brk', ...args];
  if (/(^|\/)python[\d.]*$/.test(program)) return [program, '-m', 'pdb', ...args];
  return ['gdb', '--args', program, ...args];
}
