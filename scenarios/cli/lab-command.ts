import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { commandLine } from '../host/command-line.js';
import { log, printJson, print as printLine } from '../host/console.js';
import { builtImage } from '../runtime/vm/lab/image.js';
import { imagesOnDisk, type LabImage, removeImages } from '../runtime/vm/lab/image-cache.js';
import { type LabRecord, labDown, labStatus, labUp } from '../runtime/vm/lab/lab.js';
import { formatGigabytes } from './common.js';

/** Runs `lab up`: starts the VM and prints its addresses. Resolves to the exit code. */
export async function labUpCommand(flags: { json?: boolean }): Promise<number> {
  const record = await labUp(log);
  printStatus(flags, { state: 'up', ...labFacts(record) }, `up: ${describeLab(record)}`);
  return EXIT_CODES.pass;
}

/**
 * Runs `lab down`: stops the VM, whatever its state is, and with `remove` also removes the images of this user.
 * Resolves to the exit code.
 */
export async function labDownCommand(flags: { json?: boolean; remove?: boolean }): Promise<number> {
  const was = await labDown(log);
  const { dir } = imagesOnDisk();
  const wait = () => log('lab: another process builds the lab VM: waiting for it');
  const removed = flags.remove === true ? await removeImages(wait) : 0;
  const images = flags.remove === true ? `; ${count(removed)} removed from ${dir}` : '';
  const data = { state: 'down', was, ...(flags.remove === true ? { removedImages: removed } : {}) };
  printStatus(flags, data, `${was ? 'down' : 'no lab VM was up'}${images}`);
  return EXIT_CODES.pass;
}

/** Runs `lab status`: prints a line about the VM and one about its image. Resolves to exit code 0 when the VM is up, otherwise to 3. */
export async function labStatusCommand(flags: { json?: boolean }): Promise<number> {
  const status = await labStatus();
  const built = builtImage();
  const image =
    built === undefined
      ? null
      : { folder: built.folder, kernel: built.kernel, builtAt: built.builtAt, ...sizeOf(imagesOnDisk()) };
  const print = (data: object, line: string) => printStatus(flags, { ...data, image }, line);
  switch (status.kind) {
    case 'down':
      print({ state: 'down' }, `down; ${commandLine('lab', 'up')} starts it`);
      break;
    case 'stale':
      print(
        { state: 'stale', why: status.why },
        `stale: ${status.why}; ${commandLine('lab', 'up')} replaces it`,
      );
      break;
    case 'up':
      print({ state: 'up', ...labFacts(status.record) }, `up: ${describeLab(status.record)}`);
      break;
  }
  if (!flags.json) printLine(imageLine(built));
  return status.kind === 'up' ? EXIT_CODES.pass : EXIT_CODES.notMeasured;
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
  else printLine(line);
}

function imageLine(built: LabImage | undefined): string {
  const { dir, count: total, sizeBytes } = imagesOnDisk();
  const all = `${count(total)} of ${formatGigabytes(sizeBytes)} in all in ${dir}; ${commandLine('lab', 'down', '--remove')} removes them`;
  if (built === undefined)
    return total === 0 ? 'image: not built' : `image: not built for this version; ${all}`;
  return `image: kernel ${built.kernel}, built ${built.builtAt}; ${all}`;
}

function sizeOf({ count, sizeBytes }: { count: number; sizeBytes: number }) {
  return { images: count, imagesBytes: sizeBytes };
}

function count(images: number): string {
  return images === 1 ? '1 image' : `${images} images`;
}
