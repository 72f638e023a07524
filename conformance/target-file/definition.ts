import { z } from 'zod';
import { PROTOCOL_NAMES } from '../protocols/protocol-names.js';
import { TARGET_SCHEMA_URL } from './versions.js';

/** Names of the faults that need several nodes. */
export const CLUSTER_FAULT_NAMES = [
  'partition',
  'stale-link',
  'link-delay',
  'link-loss',
  'cut-then-elect',
  'node-loss',
] as const;

/** Names of the faults that a target can claim to survive. */
export const FAULT_NAMES = [
  'kill',
  'pause',
  'tear',
  'index-loss',
  'data-rot',
  'full',
  'clock',
  'power-cut',
  'crash-states',
  'io-error',
  'disk-stall',
  ...CLUSTER_FAULT_NAMES,
] as const;

/** Name of a fault or of a family of faults. */
export type FaultName = (typeof FAULT_NAMES)[number];

const object = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.strictObject(shape, {
    error: (issue) =>
      issue.code === 'unrecognized_keys' ? `one of ${Object.keys(shape).join(', ')}` : 'an object',
  });

const COMMAND_RULE = 'a list of strings: the program, then its arguments';
const command = () =>
  z
    .array(z.string({ error: 'a string' }).min(1, { error: 'a string that is not empty' }), {
      error: COMMAND_RULE,
    })
    .min(1, { error: COMMAND_RULE });

const globs = () =>
  z.array(z.string({ error: 'a glob relative to {data}' }).min(1, { error: 'a glob relative to {data}' }), {
    error: 'a list of globs relative to {data}',
  });

const BOUND_RULE = 'a whole number from 0, "in-delivery", "unbounded", or { "consumedWithinSeconds": N }';
const bound = () =>
  z.union(
    [
      z
        .int({ error: BOUND_RULE })
        .min(0, { error: BOUND_RULE })
        .describe('Number of messages, besides those in delivery.'),
      z.literal('in-delivery').describe('The messages that were in delivery at the crash, and no others.'),
      z.literal('unbounded').describe('No bound is claimed.'),
      object({
        consumedWithinSeconds: z
          .number({ error: 'a number of seconds from 0' })
          .min(0, { error: 'a number of seconds from 0' }),
      }).describe(
        'The messages that were in delivery at the crash, and those consumed at most this many seconds before it.',
      ),
    ],
    { error: BOUND_RULE },
  );

const Service = object({
  command: command().describe('Command that starts the service. Placeholders are replaced.'),
  image: z
    .string({ error: 'the name of an image' })
    .optional()
    .describe('Container image in which the command runs under the runtimes docker and vm.'),
  env: z
    .record(
      z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, { error: 'a name of letters, digits and underscores' }),
      z.string({ error: 'a string' }),
      { error: 'an object of strings by variable name' },
    )
    .optional()
    .describe('Additional environment variables of the service. Placeholders in the values are replaced.'),
  user: z
    .string({ error: 'the name of a user' })
    .regex(/^[A-Za-z0-9_][A-Za-z0-9._-]*$/, { error: 'the name or number of a user' })
    .optional()
    .describe(
      'User as which the service runs; it must exist on the machine or in the image. Default: the user of the kit, ' +
        'and in a container the user of the image.',
    ),
  nodes: z
    .array(z.string({ error: 'the name of a node' }), { error: 'a list of names of nodes' })
    .min(1, { error: 'at least one name of a node' })
    .optional()
    .describe('Nodes on which the service runs. Default: every node.'),
}).describe('One kind of process of the target.');

/** Upper bound of the number of nodes: each has its own disk and network namespace on one machine. */
export const MAX_NODES = 9;
/** Upper bound of `guarantee.cluster.electionSeconds`. */
export const MAX_ELECTION_SECONDS = 300;
/** Lower bound of it: a producer of a cluster waits up to 2 s for an answer before it goes on to another node. */
const MIN_ELECTION_SECONDS = 3;
const ELECTION_RULE = `a number of seconds from ${MIN_ELECTION_SECONDS} to ${MAX_ELECTION_SECONDS}`;

const Cluster = object({
  tolerates: z
    .int({ error: 'a whole number from 0' })
    .min(0, { error: 'a whole number from 0' })
    .describe(
      'Number of nodes that may fail at the same time. No fault harms more of them at once, except the faults of all nodes ' +
        'and cut-then-elect.',
    ),
  electionSeconds: z
    .number({ error: ELECTION_RULE })
    .min(MIN_ELECTION_SECONDS, { error: ELECTION_RULE })
    .max(MAX_ELECTION_SECONDS, { error: ELECTION_RULE })
    .prefault(30)
    .describe(
      'Longest time, in seconds, until the nodes that are left confirm messages again after a fault that they tolerate. ' +
        'Default: 30.',
    ),
}).describe('What the nodes of a cluster guarantee together.');

/** Upper bound of `guarantee.redeliverySeconds`: a drain never waits longer. */
export const MAX_REDELIVERY_SECONDS = 600;

const Guarantee = object({
  faults: z
    .array(z.enum(FAULT_NAMES, { error: `one of ${FAULT_NAMES.join(', ')}` }), { error: 'a list of faults' })
    .min(1, { error: 'at least one fault' })
    .describe('The faults that the target claims to survive. Other faults are not tried.'),
  duplicatesPerCrash: bound().describe(
    'Bound on the duplicates after a kill of processes. A duplicate is a second delivery of a message whose ' +
      'consumption the target knew of. Messages that were in delivery at the crash are always counted separately.',
  ),
  duplicatesPerPowerCut: bound()
    .optional()
    .describe('Bound on the duplicates after a crash of the whole machine. Default: duplicatesPerCrash.'),
  duplicatesAfterIndexLoss: bound()
    .optional()
    .describe('Bound on the duplicates after the index was lost or damaged. Default: duplicatesPerCrash.'),
  inDeliveryPerSession: z
    .int({ error: 'a whole number from 1' })
    .min(1, { error: 'a whole number from 1' })
    .optional()
    .describe(
      'For protocols that push: the greatest number of messages of one session that the receiver has accepted and the ' +
        'target has not yet recorded as delivered. Default: all messages of a session, until it ends in order.',
    ),
  recoverySeconds: z
    .number({ error: 'a number of seconds above 0' })
    .positive({ error: 'a number of seconds above 0' })
    .optional()
    .describe('Longest time from the restart until every service is ready again, in seconds.'),
  redeliverySeconds: z
    .number({ error: `a number of seconds above 0 and at most ${MAX_REDELIVERY_SECONDS}` })
    .positive({ error: `a number of seconds above 0 and at most ${MAX_REDELIVERY_SECONDS}` })
    .max(MAX_REDELIVERY_SECONDS, {
      error: `a number of seconds above 0 and at most ${MAX_REDELIVERY_SECONDS}`,
    })
    .optional()
    .describe(
      'Longest time, in seconds, that may pass before the target offers an undelivered message again: the length of a ' +
        'lease or of the longest wait between two attempts. At the end of a round, a message is lost if it is missing ' +
        'after this time without a delivery. Default: derived from the waits that the target has shown.',
    ),
  headers: z
    .enum(['unchanged', 'may-be-completed'], { error: '"unchanged" or "may-be-completed"' })
    .optional()
    .describe(
      'What a mail server may do with a message. `may-be-completed`: it may add a missing Message-ID or Date, and ' +
        'fold lines of more than 998 bytes with their line end. Default: unchanged.',
    ),
  order: z
    .literal('per-producer', { error: '"per-producer"' })
    .optional()
    .describe(
      'The order of first deliveries. `per-producer`: confirmed messages of one producer come in the order in which it ' +
        'submitted them. The kit then submits and receives one message after the other. Default: no order is claimed.',
    ),
  cluster: Cluster.optional(),
}).describe('The guarantees of the target. The kit checks these and no others.');

const CrashStates = object({
  install: command()
    .optional()
    .describe(
      'Command that replaces `install` when crash states are explored. It should install the same target as small as possible.',
    ),
  restore: command()
    .optional()
    .describe(
      'Program that restores thousands of stored states, one after the other. It reads JSON lines {"queue": DIR} from stdin, ' +
        'restores the directory DIR, and answers each line with ' +
        '{"live": [N, …], "names": {N: SHA-256 of a message, …}, "problems": […]} or {"error": "…"}. ' +
        'It sends the hash of each number N once.',
    ),
  queue: z
    .string({ error: 'a path relative to {data}' })
    .min(1, { error: 'a path relative to {data}' })
    .optional()
    .describe('Directory that `restore` restores. Default: {data} itself.'),
}).describe('Settings that explore crash states faster than by a start of the target on each state.');

/** Schema of a target file. Unknown keys are errors: a misspelt guarantee would otherwise never be checked. */
export const TargetDefinition = object({
  $schema: z
    .string({ error: 'a location' })
    .optional()
    .describe('Location of the JSON Schema of this file, for editors.'),
  name: z
    .string({ error: 'a name' })
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, { error: 'a name of letters, digits, dots and dashes' })
    .describe('Name of the target, used in reports.'),
  protocol: z
    .enum(PROTOCOL_NAMES, { error: `one of ${PROTOCOL_NAMES.join(', ')}` })
    .describe('Protocol by which messages are submitted and received.'),
  services: z
    .record(
      z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_-]*$/, { error: 'a name of letters, digits and dashes' }),
      Service,
      { error: 'an object of services by name' },
    )
    .refine((services) => Object.keys(services).length > 0, { error: 'at least one service' })
    .describe('The processes of the target, started in this order.'),
  nodes: z
    .array(
      z.string({ error: 'a name of a node' }).regex(/^[a-z][a-z0-9-]{0,15}$/, {
        error: 'a name of at most 16 lower-case letters, digits and dashes',
      }),
      { error: 'a list of names of nodes' },
    )
    .min(2, { error: 'at least two nodes; leave it out for a target of one node' })
    .max(MAX_NODES, { error: `at most ${MAX_NODES} nodes` })
    .optional()
    .describe(
      'Names of the nodes of a cluster. Each node has its own {data} on its own disk, and its own network address. ' +
        'Default: the target has one node, which is this machine.',
    ),
  install: command()
    .optional()
    .describe(
      'Command that runs once in an empty {data}, before the services start; in a cluster, once per node.',
    ),
  promote: command()
    .optional()
    .describe(
      'Command that makes a node take over, in a cluster whose operator has to decide that. It runs on the node that takes over.',
    ),
  submit: z
    .array(z.string({ error: 'the name of a port' }), { error: 'a list of port names' })
    .min(1, { error: 'at least one port name' })
    .optional()
    .describe('Names of the ports among which producers are distributed. Default: the unnamed {port}.'),
  verify: command()
    .optional()
    .describe(
      'Command that inspects the stored state while the target runs or is stopped. It prints one JSON object ' +
        '{ok, problems[], keptAside, live} to stdout.',
    ),
  files: object({
    index: globs().prefault([]).describe('Index files: the target can rebuild them from its other files.'),
    messages: globs().prefault([]).describe('Files that hold messages.'),
    scratch: globs()
      .prefault([])
      .describe('Files that the target makes anew at each start, such as shared memory and lock files.'),
  })
    .optional()
    .describe(
      'Kinds of files, as globs relative to {data}. The faults index-loss and data-rot damage `index` and `messages`; ' +
        'a change of a `scratch` file never counts as the hit of a fault.',
    ),
  nudge: command()
    .optional()
    .describe(
      'Command that makes a running target offer its undelivered messages at once, such as one that flushes a mail queue. ' +
        'The kit runs it while it waits for the last messages of a round.',
    ),
  sources: z
    .array(z.string({ error: 'a path relative to {dir}' }).min(1, { error: 'a path relative to {dir}' }), {
      error: 'a list of paths relative to {dir}',
    })
    .optional()
    .describe(
      'More files and folders, relative to {dir}, that belong to the target. A certificate covers exactly these and the files ' +
        'that the commands name.',
    ),
  crashStates: CrashStates.optional(),
  guarantee: Guarantee,
});

/** Content of a target file before defaults are filled in. */
export type TargetInput = z.input<typeof TargetDefinition>;
/** Content of a target file with its defaults filled in. */
export type TargetFile = z.output<typeof TargetDefinition>;
/** Guarantees that a target claims. */
export type Guarantee = TargetFile['guarantee'];
/** Claimed bound on duplicates. */
export type DuplicateBound = Guarantee['duplicatesPerCrash'];

/** A target definition together with the folder that `{dir}` stands for. */
export interface Target extends TargetFile {
  /** Absolute path of the folder of the target file. */
  dir: string;
}

/** Returns the published JSON Schema of target files; a test compares `target.schema.json` with it. */
export function targetJsonSchema(): string {
  const schema = z.toJSONSchema(TargetDefinition, { io: 'input' });
  return `${JSON.stringify({ $id: TARGET_SCHEMA_URL, title: 'PlugPull target definition', ...schema }, null, 2)}\n`;
}
