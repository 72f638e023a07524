import { labDown, labStatus, labUp, type UpRecord } from '../runtime/vm/lab/lab.js';

/** `lab up`: prints where the VM is and resolves to the exit code. */
export async function labUpCommand(flags: { json?: boolean }): Promise<number> {
  const record = await labUp((line) => void process.stderr.write(`${line}\n`));
  tell(flags, { state: 'up', ...facts(record) }, `up: ${describe(record)}`);
  return 0;
}

/** `lab down`: ends the VM, whatever state it is in. */
export async function labDownCommand(flags: { json?: boolean }): Promise<number> {
  const was = await labDown();
  tell(flags, { state: 'down', was }, was ? 'down' : 'no lab VM was up');
  return 0;
}

/** `lab status`: one line; 0 when it is up, 3 when it is not. */
export async function labStatusCommand(flags: { json?: boolean }): Promise<number> {
  const status = await labStatus();
  switch (status.kind) {
    case 'down':
      tell(flags, { state: 'down' }, 'down; plugpull lab up starts it');
      return 3;
    case 'stale':
      tell(flags, { state: 'stale', why: status.why }, `stale: ${status.why}; plugpull lab up replaces it`);
      return 3;
    case 'up':
      tell(flags, { state: 'up', ...facts(status.record) }, `up: ${describe(status.record)}`);
      return 0;
  }
}

function facts({ accelerator, upAt, address }: UpRecord) {
  return {
    accelerator,
    upAt,
    pid: address.pid,
    engine: `tcp://127.0.0.1:${address.enginePort}`,
    console: `${address.dir}/console.log`,
  };
}

function describe(record: UpRecord): string {
  const { engine, pid, accelerator, console } = facts(record);
  return `engine at ${engine}, process ${pid}, ${accelerator}, console in ${console}`;
}

function tell(flags: { json?: boolean }, data: unknown, line: string): void {
  process.stdout.write(`${flags.json ? JSON.stringify(data) : line}\n`);
}
