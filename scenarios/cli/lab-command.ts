import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { commandLine } from '../host/command-line.js';
import { log, print, printJson } from '../host/console.js';
import { type LabRecord, labDown, labStatus, labUp } from '../runtime/vm/lab/lab.js';

/** Runs `lab up`: starts the VM and prints its addresses. Resolves to the exit code. */
export async function labUpCommand(flags: { json?: boolean }): Promise<number> {
  const record = await labUp(log);
  printStatus(flags, { state: 'up', ...labFacts(record) }, `up: ${describeLab(record)}`);
  return EXIT_CODES.pass;
}

/** Runs `lab down`: stops the VM, whatever its state is. Resolves to the exit code. */
export async function labDownCommand(flags: { json?: boolean }): Promise<number> {
  const was = await labDown();
  printStatus(flags, { state: 'down', was }, was ? 'down' : 'no lab VM was up');
  return EXIT_CODES.pass;
}

/** Runs `lab status`: prints one line. Resolves to exit code 0 when the VM is up, otherwise to 3. */
export async function labStatusCommand(flags: { json?: boolean }): Promise<number> {
  const status = await labStatus();
  switch (status.kind) {
    case 'down':
      printStatus(flags, { state: 'down' }, `down; ${commandLine('lab', 'up')} starts it`);
      return EXIT_CODES.notMeasured;
    case 'stale':
      printStatus(
        flags,
        { state: 'stale', why: status.why },
        `stale: ${status.why}; ${commandLine('lab', 'up')} replaces it`,
      );
      return EXIT_CODES.notMeasured;
    case 'up':
      printStatus(flags, { state: 'up', ...labFacts(status.record) }, `up: ${describeLab(status.record)}`);
      return EXIT_CODES.pass;
  }
}

function labFacts({ accelerator, upAt, address }: LabRecord) {
  return {
    accelerator,
    upAt,
    pid: address.pid,
    engine: `tcp://127.0.0.1:${address.enginePort}`,
    console: `${address.dir}/console.log`,
  };
}

function describeLab(record: LabRecord): string {
  const { engine, pid, accelerator, console } = labFacts(record);
  return `engine at ${engine}, process ${pid}, ${accelerator}, console in ${console}`;
}

function printStatus(flags: { json?: boolean }, data: unknown, line: string): void {
  if (flags.json) printJson(data);
  else print(line);
}
