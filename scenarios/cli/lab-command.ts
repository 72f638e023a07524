import { type LabRecord, labDown, labStatus, labUp } from '../runtime/vm/lab/lab.js';

/** `lab up`: prints where the VM is and resolves to the exit code. */
export async function labUpCommand(flags: { json?: boolean }): Promise<number> {
  const record = await labUp((line) => void process.stderr.write(`${line}\n`));
  printStatus(flags, { state: 'up', ...labFacts(record) }, `up: ${describeLab(record)}`);
  return 0;
}

/** `lab down`: ends the VM, whatever state it is in. */
export async function labDownCommand(flags: { json?: boolean }): Promise<number> {
  const was = await labDown();
  printStatus(flags, { state: 'down', was }, was ? 'down' : 'no lab VM was up');
  return 0;
}

/** `lab status`: one line; 0 when it is up, 3 when it is not. */
export async function labStatusCommand(flags: { json?: boolean }): Promise<number> {
  const status = await labStatus();
  switch (status.kind) {
    case 'down':
      printStatus(flags, { state: 'down' }, 'down; plugpull lab up starts it');
      return 3;
    case 'stale':
      printStatus(
        flags,
        { state: 'stale', why: status.why },
        `stale: ${status.why}; plugpull lab up replaces it`,
      );
      return 3;
    case 'up':
      printStatus(flags, { state: 'up', ...labFacts(status.record) }, `up: ${describeLab(status.record)}`);
      return 0;
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
  process.stdout.write(`${flags.json ? JSON.stringify(data) : line}\n`);
}
