import { z } from 'zod';
import { TargetDefinition } from '../../conformance/target-file/definition.js';

/** Raised when what stands in a bundle is not understood by an older kit any more. */
export const BUNDLE_VERSION = 1;

const Injection = z.object({
  fault: z.string(),
  afterConfirms: z.number(),
  atMostMs: z.number(),
  held: z.boolean().optional(),
  inRecovery: z.number().optional(),
  beforeStart: z.literal(true).optional(),
  number: z.int().optional(),
  point: z
    .object({
      service: z.string(),
      kind: z.string(),
      nth: z.int().min(1),
      what: z.enum(['kill', 'EIO', 'ENOSPC']),
    })
    .optional(),
});

const Filesystem = z.object({ type: z.enum(['ext4', 'xfs']), mountOptions: z.string() });

/** What of a round is needed to run it again. */
export const GateCase = z.object({
  kind: z.literal('gate'),
  runtime: z.enum(['process', 'docker', 'vm']),
  power: z.enum(['blocklog', 'flakey']),
  filesystem: Filesystem,
  /** As it happened: the injections that were done, with the numbers by which their draws are made again. */
  schedule: z.object({
    seed: z.int(),
    injections: z.array(Injection),
    disk: z.enum(['any', 'limited', 'power']),
    producers: z.int().min(1),
    depth: z.int().min(1),
  }),
  /** Number of the round in its run, which is part of every message's id. */
  round: z.int().min(1),
});

/** One crash state of a recorded run. */
export const CrashStateCase = z.object({
  kind: z.literal('crash-state'),
  /** Address of the state in the log (`writes.log`), as explore tells it; `OUTER>INNER` for a cut of the recovery from OUTER. */
  state: z.string(),
  /** Entries of the log that count. */
  end: z.int().min(0),
  /** The log of the recovery that was cut, by its name in the bundle, and how many entries of it count. */
  recovery: z.object({ log: z.string().regex(/^recovery-\d+\.log$/), end: z.int().min(0) }).optional(),
  filesystem: Filesystem,
  /** SHA-256 of the messages in the order of their first submit: by these the target's own program names what it holds. */
  digests: z.array(z.string()),
  /** Marks every message of the run. */
  run: z.string(),
});

/**
 * `bundle.json`, the first file of a bundle. A bundle is a .tar.gz of the evidence directory as it was (history, schedules,
 * logs, data), images of disks without their zeros (`*.extents`, see extents.ts), and a seal at its end (seal.ts).
 */
export const Manifest = z.object({
  format: z.literal('plugpull-bundle'),
  version: z.literal(BUNDLE_VERSION),
  kitVersion: z.string(),
  target: z.object({
    definition: TargetDefinition,
    /** Where `{dir}` was. */
    dir: z.string(),
    /** It is the kit's own reference implementation, which every installation has. */
    builtin: z.boolean(),
    /** What its commands name below `{dir}` and was there. */
    needs: z.array(z.string()),
  }),
  seed: z.int(),
  /** Requirements that failed; to see one of them again is to see the violation again. */
  requirements: z.array(z.string()).min(1),
  why: z.string(),
  /** The smallest story that is known, in a few lines. */
  story: z.array(z.string()),
  /** Files of the evidence that were too large, by name. */
  leftOut: z.array(z.string()),
  case: z.discriminatedUnion('kind', [GateCase, CrashStateCase]),
});

export type GateCase = z.output<typeof GateCase>;
export type CrashStateCase = z.output<typeof CrashStateCase>;
export type Manifest = z.output<typeof Manifest>;
