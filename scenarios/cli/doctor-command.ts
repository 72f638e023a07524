import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { FAULTS } from '../../faults/catalogue/catalogue.js';
import type { Availability, Fault } from '../../faults/fault.js';
import { commandLine } from '../host/command-line.js';
import { print, printJson } from '../host/console.js';
import { describeHungDisk, hungDisks } from '../host/dead-runs.js';
import { styleFor } from '../report/style.js';
import { table } from '../report/table.js';
import { bootViewAvailability } from '../runtime/boot/boot-view.js';
import { RUNTIMES } from '../runtime/choice/runtimes.js';
import { containerBootAvailability } from '../runtime/docker/container-boot.js';
import { nodeNetworkAvailability, nodeNetworkMethod } from '../runtime/nodes/availability.js';
import { POWER_BACKENDS } from '../runtime/power-backends.js';

/** A runtime, fault or power backend, and whether this machine has it. */
export interface Capability {
  name: string;
  available: boolean;
  /** Reason why the capability is not available. */
  why?: string;
  /** How the user can make the capability available. */
  remedy?: string;
  /** The method that is used, when there is more than one. */
  how?: string;
}

export interface DoctorReport {
  runtimes: Capability[];
  faults: Capability[];
  power: Capability[];
  /** Whether the target sees a reboot after a crash of the machine, by runtime. */
  reboot: Capability[];
  /** What the nodes of a cluster need, by runtime. */
  nodes: Capability[];
  /** Disks that killed runs have left stopped, one line each: programs that look at disks hang. */
  hungDisks: string[];
}

/** Prints the capabilities of this machine. Resolves to the exit code. */
export async function doctorCommand(flags: { json?: boolean }): Promise<number> {
  const report = await inspectMachine();
  if (flags.json) printJson(report);
  else for (const line of formatReport(report)) print(line);
  return EXIT_CODES.pass;
}

/** Checks which runtimes, faults and power backends this machine has. */
export async function inspectMachine(): Promise<DoctorReport> {
  const runtimes = await Promise.all(
    RUNTIMES.map(async (runtime) => capabilityOf(runtime.name, await runtime.available())),
  );
  return {
    runtimes,
    faults: await Promise.all(
      FAULTS.map(async (fault) => ({
        ...capabilityOf(fault.name, await fault.available()),
        ...betterMethodOf(fault),
      })),
    ),
    power: await Promise.all(
      POWER_BACKENDS.map(async ({ name, available }) => capabilityOf(name, await available())),
    ),
    reboot: [
      { ...capabilityOf('process', bootViewAvailability()), how: 'by a mount namespace for each start' },
      { ...capabilityOf('docker', containerBootAvailability()), how: imageNeeds() },
    ],
    nodes: [
      nodeCapability(),
      ...runtimes.filter(({ name }) => name !== 'process').map(containerNodeCapability),
    ],
    hungDisks: (await hungDisks()).map(describeHungDisk),
  };
}

function capabilityOf(name: string, availability: Availability): Capability {
  if (availability.available) return { name, available: true };
  return { name, available: false, why: availability.why, remedy: availability.remedy };
}

function nodeCapability(): Capability {
  const method = nodeNetworkMethod();
  if (method.how === 'none')
    return { name: 'process', available: false, why: method.why, remedy: method.remedy };
  const where = method.how === 'own' ? '' : ' in a user namespace of the kit';
  const netem = method.netem ? ', with delays and losses' : '';
  return { name: 'process', available: true, how: `by network namespaces${where}${netem}` };
}

/** Describes what nodes as containers need beside their runtime: under `docker`, links as those of plain processes. */
function containerNodeCapability({ name, ...rest }: Capability): Capability {
  if (!rest.available) return { name, ...rest };
  if (name === 'vm')
    return { name, available: true, how: 'by network namespaces in it, with delays and losses' };
  const links = capabilityOf(name, nodeNetworkAvailability());
  return links.available ? { ...links, how: 'by the network namespaces of a pod per node' } : links;
}

/**
 * Describes the better method of a fault that is injected into processes, or by a disk below the
 * filesystem.
 */
function betterMethodOf({ preferredDisk }: Fault): Pick<Capability, 'how'> {
  return preferredDisk === undefined ? {} : { how: 'behind dm-flakey by the disk itself' };
}

/** What the images of a target need under `--runtime docker`. */
const imageNeeds = (): string =>
  `an image needs the programs of its commands, strace for tear, kill-syscall and io-error, and libfaketime for clock; ${commandLine('check', 'TARGET', '--runtime', 'docker')} reports what is missing`;

function formatReport(report: DoctorReport): string[] {
  const style = styleFor(process.stdout);
  const section = (title: string, list: readonly Capability[]) => [
    style.strong(title),
    ...table(
      list.map(({ name, available, why, remedy, how }) => [
        `  ${name}`,
        available ? 'yes' : 'no',
        [why, remedy, how].filter((text) => text !== undefined).join('; '),
      ]),
    ),
  ];
  return [
    ...section('Runtimes', report.runtimes),
    ...section('Faults', report.faults),
    ...section('Power backends', report.power),
    ...section('Reboot after a crash of the machine', report.reboot),
    ...section('Nodes of a cluster', report.nodes),
    ...report.hungDisks.map((line) => `${style.warn('warning')}: ${line}`),
  ];
}
