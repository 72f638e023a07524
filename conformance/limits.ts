import { KitError } from './errors.js';

/*
 * The limit of each kind of input. A stranger makes the certificates, bundles and target files, and a target under
 * test may answer anything. Without these limits a small file or one answer could fill the memory or the disk of the
 * machine. `PLUGPULL_LIMITS` changes limits, for example for a larger honest input: `NAME=NUMBER`, separated by commas.
 */

const KIB = 2 ** 10;
const MIB = 2 ** 20;
const GIB = 2 ** 30;

/** Default of each limit. A name that ends with `-bytes` or `-ms` names its unit; the others count things. */
export const DEFAULT_LIMITS = {
  /** A target file. Real ones have a few kilobytes; each value takes a hundred times its text in memory. */
  'target-file-bytes': 4 * MIB,
  /** A JSON document that is read as a whole: a certificate, its facts, the manifest of a bundle. */
  'json-bytes': 64 * MIB,
  /** Values in a JSON document. `[[],[],…` makes an object of every three bytes. */
  'json-values': 2_000_000,
  /** Nested lists and objects of a JSON document. The deepest document of the kit has ten. */
  'json-depth': 100,

  /** Files of the evidence of a certificate: 5,000 of the target, and those of the kit. */
  'evidence-files': 6_000,
  /** All files of the evidence of a certificate together. Reading them takes time, but no memory. */
  'evidence-bytes': 8 * GIB,

  /** The text of a history, unpacked. Ten million events take 2 GiB. */
  'history-bytes': 8 * GIB,
  /** Unpacked size of a packed history, as a multiple of its packed size. Real ones have 5 to 20. */
  'history-ratio': 250,
  /** A line of a history. The longest one names every message of a file that a crash has destroyed. */
  'history-line-bytes': 16 * MIB,
  /**
   * Events of a history that are held in memory. The messages of a longer history that need no judgement are
   * only counted.
   */
  'history-events': 500_000,

  /** All files of a bundle together, unpacked. */
  'bundle-bytes': 4 * GIB,
  /** One file of a bundle, unpacked. Larger evidence is left out of a bundle. */
  'bundle-entry-bytes': GIB,
  /** Files and directories in a bundle. The data of a target may have some thousand. */
  'bundle-entries': 50_000,
  /**
   * Unpacked size of a bundle that was not made here, as a multiple of its packed size. Counts from the first 256 MiB on.
   */
  'bundle-ratio': 100,
  /** Size that the disk image of a bundle claims. It has holes, so it takes less room. */
  'image-bytes': 64 * GIB,

  /** One answer of a target: the largest message of the workload, and room for what is around it. */
  'answer-bytes': 16 * MIB,
  /** The answer of a target to the question whether it is ready. */
  'ready-answer-bytes': 64 * KIB,
  /** One line of a target's restore program. It names every message that the queue holds. */
  'restore-answer-bytes': 64 * MIB,
  /** Time in which a target must deliver a whole message over SMTP. A client could send a byte a minute. */
  'delivery-ms': 300_000,

  /** Output that is saved of one command of a target: install, verify, nudge. */
  'command-output-bytes': 8 * MIB,
  /** What is kept of the output of each start of a service, from its beginning: the settings and the first errors. */
  'log-head-bytes': MIB,
  /** What is kept of the output of each start of a service, from its end: the reason of an exit. */
  'log-tail-bytes': 4 * MIB,
  /** What is kept of the output of all starts of a service together, or of all runs of a command. */
  'log-bytes': 64 * MIB,

  /** Failed runs whose evidence stays in the state directory. */
  'kept-runs': 20,
  /** Size of the evidence of failed runs that stays in the state directory. */
  'kept-bytes': 10 * GIB,
} as const;

/** Name of a limit, as `PLUGPULL_LIMITS` has it. */
export type LimitName = keyof typeof DEFAULT_LIMITS;

let parsed: { text: string; values: ReadonlyMap<string, number> } = { text: '', values: new Map() };

/**
 * Returns the current value of a limit.
 * @throws KitError bad-usage when `PLUGPULL_LIMITS` is malformed.
 */
export function limit(name: LimitName): number {
  const text = process.env.PLUGPULL_LIMITS ?? '';
  if (parsed.text !== text) parsed = { text, values: parseLimits(text) };
  return parsed.values.get(name) ?? DEFAULT_LIMITS[name];
}

/** Says how a limit is exceeded and how it is raised: `more than 5 files (PLUGPULL_LIMITS=NAME=N allows more)`. */
export function beyond(name: LimitName, unit: string): string {
  return `more than ${limit(name)} ${unit} (PLUGPULL_LIMITS=${name}=N allows more)`;
}

/** Error of an input that exceeds a limit; or the cause of such an error. */
export class LimitError extends Error {}

/** Returns whether an error says that an input exceeds a limit. Such an input was not read, so nothing is known of it. */
export function isBeyondLimit(error: unknown): boolean {
  for (let one = error; one instanceof Error; one = one.cause) if (one instanceof LimitError) return true;
  return false;
}

function parseLimits(text: string): Map<string, number> {
  const values = new Map<string, number>();
  for (const part of text.split(',').filter((one) => one.trim() !== '')) {
    const [, name = '', digits = ''] = /^\s*([a-z-]+)=(\d{1,15})\s*$/.exec(part) ?? [];
    if (!Object.hasOwn(DEFAULT_LIMITS, name)) {
      const names = Object.keys(DEFAULT_LIMITS).join(', ');
      throw new KitError(
        'bad-usage',
        `PLUGPULL_LIMITS: ${part.trim()}: expected NAME=NUMBER with one of ${names}`,
      );
    }
    values.set(name, Number(digits));
  }
  return values;
}
