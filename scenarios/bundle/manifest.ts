import { z } from 'zod';
import { TargetDefinition } from '../../conformance/target-file/definition.js';
import { whyNotAllowed } from '../../faults/power/mount-options.js';

/**
 * Version of the layout of a bundle. Raise it when an older kit would not understand a new bundle, or the
 * reverse.
 */
export const BUNDLE_VERSION = 2;

/** The source of the commands in a bundle: a target file that the user named, or another bundle; see `writeBundle`. */
export type Origin = 'own-run' | 'foreign';

const Injection = z.object({
  fault: z.string(),
  afterConfirms: z.number(),
  maxWaitMs: z.number(),
  holdReceivers: z.boolean().optional(),
  inRecovery: z.number().optional(),
  beforeStart: z.literal(true).optional(),
  number: z.int().optional(),
  nodes: z.array(z.string()).optional(),
  aim: z.object({ calls: z.enum(['sync', 'write']), position: z.int().min(1).optional() }).optional(),
  point: z
    .object({
      service: z.string(),
      kind: z.string(),
      nth: z.int().min(1),
      what: z.enum(['kill', 'EIO', 'ENOSPC']),
    })
    .optional(),
});

const Filesystem = z
  .object({ type: z.enum(['ext4', 'xfs']), mountOptions: z.string() })
  .superRefine(({ type, mountOptions }, context) => {
    const why = whyNotAllowed(type, mountOptions);
    if (why !== undefined) context.addIssue({ code: 'custom', path: ['mountOptions'], message: why });
  });

/** Everything that is needed to run a round again. */
export const GateCase = z.object({
  kind: z.literal('gate'),
  runtime: z.enum(['process', 'docker', 'vm']),
  power: z.enum(['blocklog', 'flakey']),
  filesystem: Filesystem,
  /**
   * The injections that were made. Each has the number from which a replay draws the same random choices again.
   */
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
  /**
   * Address of the state in the log (`writes.log`), as explore reports it. `OUTER>INNER` is a cut of the
   * recovery from OUTER.
   */
  state: z.string(),
  /** Number of log entries at the end of the recorded run. Later entries are ignored. */
  end: z.int().min(0),
  /**
   * For a cut of a recovery: name of the recovery's log in the bundle, and number of its entries at the end
   * of the recovery.
   */
  recovery: z.object({ log: z.string().regex(/^recovery-\d+\.log$/), end: z.int().min(0) }).optional(),
  filesystem: Filesystem,
  /**
   * SHA-256 of the messages in the order of their first submit. The target's restore program names the
   * messages that it holds by these digests.
   */
  digests: z.array(z.string()),
  /** Id of the recorded run, which every message of the run contains. */
  run: z.string(),
});

/** Name of a node, as in a target file. */
const NodeName = z.string().regex(/^[a-z][a-z0-9-]{0,15}$/);

/** One crash state of a recorded run of a cluster. */
export const ClusterStateCase = z.object({
  kind: z.literal('cluster-state'),
  /** Address of the state, as explore reports it; see `formatClusterState`. */
  state: z.string(),
  /** Number of log entries of each node that count, by its name. */
  ends: z.record(NodeName, z.int().min(0)),
  filesystem: Filesystem,
  /** Id of the recorded run, which every message of the run contains. */
  run: z.string(),
  /** IPv4 addresses of the nodes, and ports by name, of the recorded run: the target may have stored them. */
  addresses: z.record(NodeName, z.ipv4()),
  ports: z.record(z.string(), z.int().min(1).max(65_535)),
});

/**
 * `bundle.json`, the first file of a bundle. A bundle is a .tar.gz of the evidence directory (history,
 * schedules, logs, data), with disk images without their zeros (`*.extents`, see extents.ts) and a seal at
 * its end (seal.ts).
 */
export const Manifest = z.object({
  format: z.literal('plugpull-bundle'),
  version: z.literal(BUNDLE_VERSION),
  kitVersion: z.string(),
  target: z.object({
    definition: TargetDefinition,
    /** Folder that `{dir}` stood for in the failed run. */
    dir: z.string(),
    /** True for a reference implementation of the kit, which every installation has. */
    builtin: z.boolean(),
    /**
     * Files that the target's commands name, below `{dir}` or by their full path, and that existed. A replay
     * requires them.
     */
    requiredFiles: z.array(z.string()),
  }),
  seed: z.int(),
  /** Requirements that failed. A replay that fails one of them again has reproduced the violation. */
  requirements: z.array(z.string()).min(1),
  why: z.string(),
  /** Summary of the violation: what happened to the first message concerned, one line per step. */
  summary: z.array(z.string()),
  /** Names of evidence files that the limits of a bundle leave out; the last line may say how many more there are. */
  omittedFiles: z.array(z.string()),
  case: z.discriminatedUnion('kind', [GateCase, CrashStateCase, ClusterStateCase]),
});

export type GateCase = z.output<typeof GateCase>;
export type ClusterStateCase = z.output<typeof ClusterStateCase>;
export type CrashStateCase = z.output<typeof CrashStateCase>;
export type Manifest = z.output<typeof Manifest>;
