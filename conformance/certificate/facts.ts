import { z } from 'zod';

const LEVEL = z.enum(['process', 'torn', 'power', 'crash-states', 'errors', 'cluster']);
const SHA256 = z.string().regex(/^[0-9a-f]{64}$/);

/**
 * Version of the layout of the evidence, and of the certificate that follows from it; evidence of any other
 * version is refused.
 */
export const FACTS_FORMAT = 2;

/**
 * Facts of a certificate that are neither in the histories nor in the target: where and how the runs were made.
 */
export const Facts = z.strictObject({
  format: z.literal(FACTS_FORMAT),
  kitVersion: z.string(),
  /** SHA-256 of the compiled kit that made the runs; absent in certificates of earlier versions. */
  kitSha256: SHA256.optional(),
  /** Version of Node that ran the kit. */
  node: z.string(),
  kernel: z.string(),
  runtime: z.string(),
  /** Power backend; null if the power was not cut. */
  power: z.string().nullable(),
  filesystem: z.string(),
  budgetMs: z.number(),
  seed: z.number(),
  /** False where the processor is emulated. Claims about time are then not measured. */
  timeMeasured: z.boolean(),
  /** Name of the target file in the copy of the target that the evidence contains. */
  targetFile: z.string(),
  /**
   * Programs that the target's commands call and that are not among the files of the target that the evidence
   * contains.
   */
  programs: z.array(z.strictObject({ name: z.string(), path: z.string(), sha256: SHA256 })),
  /** Images in which services ran, with their ids on the container engine. */
  images: z.array(z.strictObject({ name: z.string(), sha256: SHA256 })),
  /** The runs, in the order in which they were made. */
  runs: z.array(
    z.strictObject({
      level: LEVEL,
      /** Claimed faults that could not be tried, with the reason. */
      notTried: z.array(z.strictObject({ name: z.string(), why: z.string() })),
      /** False when no fault could be tried: then there was no run. */
      hasHistory: z.boolean(),
    }),
  ),
  /** What weakens the verdicts without changing them, one line each; absent when there is nothing. */
  warnings: z.array(z.string()).optional(),
});

/** Facts of a certificate, as they are parsed. */
export type Facts = z.output<typeof Facts>;
