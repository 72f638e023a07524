import { z } from 'zod';

const LEVEL = z.enum(['process', 'torn', 'power', 'crash-states', 'errors']);
const SHA256 = z.string().regex(/^[0-9a-f]{64}$/);

/** What a certificate says that neither history nor target tells: where and how the runs were made. */
export const Facts = z.strictObject({
  kitVersion: z.string(),
  /** Of the kit. */
  node: z.string(),
  kernel: z.string(),
  runtime: z.string(),
  /** How the power was cut; null when it was not. */
  power: z.string().nullable(),
  filesystem: z.string(),
  budgetMs: z.number(),
  seed: z.number(),
  /** False where the processors are made in software: what is claimed about time is not measured then. */
  timeMeasured: z.boolean(),
  /** Name of the target file in the copy. */
  targetFile: z.string(),
  /** Programs that the target's commands call and that are no part of its copy. */
  programs: z.array(z.strictObject({ name: z.string(), path: z.string(), sha256: SHA256 })),
  /** Images in which services ran, with what the engine calls them. */
  images: z.array(z.strictObject({ name: z.string(), sha256: SHA256 })),
  /** In the order in which they were made. */
  runs: z.array(
    z.strictObject({
      level: LEVEL,
      /** Faults that were claimed and could not be tried. */
      notTried: z.array(z.strictObject({ name: z.string(), why: z.string() })),
      /** False when none could: there is no history then. */
      made: z.boolean(),
    }),
  ),
});

export type Facts = z.output<typeof Facts>;
