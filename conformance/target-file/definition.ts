import { z } from 'zod';
import { PROTOCOL_NAMES } from '../protocols/protocol-names.js';

/** Every fault that a target can claim to survive. */
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
] as const;

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
  z.array(z.string({ error: 'a glob relative to {data}' }).min(1), {
    error: 'a list of globs relative to {data}',
  });

const BOUND_RULE = 'a whole number from 0, "in-delivery", "unbounded", or { "consumedWithinSeconds": N }';
const bound = () =>
  z.union(
    [
      z.int().min(0).describe('So many messages beyond those in delivery.'),
      z.literal('in-delivery').describe('The messages that were in delivery at the crash, and no others.'),
      z.literal('unbounded').describe('No bound is claimed.'),
      z
        .strictObject({ consumedWithinSeconds: z.number().min(0) })
        .describe('Those in delivery, and those consumed so short a time before the crash.'),
    ],
    { error: BOUND_RULE },
  );

const Service = object({
  command: command().describe('How the service is started; placeholders are filled in.'),
  image: z
    .string({ error: 'the name of an image' })
    .optional()
    .describe('The image in which the command runs under the docker and vm runtimes.'),
}).describe('One kind of process of the target.');

const Guarantee = object({
  faults: z
    .array(z.enum(FAULT_NAMES, { error: `one of ${FAULT_NAMES.join(', ')}` }), { error: 'a list of faults' })
    .min(1, { error: 'at least one fault' })
    .describe('The faults that the target claims to survive; the others are not tried.'),
  duplicatesPerCrash: bound().describe(
    'What may be delivered twice after the kill of processes. Only what was consumed with an answer and is ' +
      'delivered once more is a duplicate; what was in delivery at the crash is always counted apart.',
  ),
  duplicatesPerPowerCut: bound()
    .optional()
    .describe('The same after a crash of the whole machine; default: duplicatesPerCrash.'),
  duplicatesAfterIndexLoss: bound()
    .optional()
    .describe('The same after the index was lost or damaged; default: duplicatesPerCrash.'),
  inDeliveryPerSession: z
    .int({ error: 'a whole number from 1' })
    .min(1, { error: 'a whole number from 1' })
    .optional()
    .describe(
      'Protocols that push: the most messages of one session that the receiver has accepted and the target has ' +
        'not yet recorded as delivered. Default: all of a session, until it ends in order.',
    ),
  recoverySeconds: z
    .number({ error: 'a number of seconds above 0' })
    .positive({ error: 'a number of seconds above 0' })
    .optional()
    .describe('Every service is ready again so long after the restart.'),
}).describe('What the target promises; it is held to this and to nothing else.');

const pathInData = () =>
  z.string({ error: 'a path relative to {data}' }).min(1, { error: 'a path relative to {data}' });

const CrashStates = object({
  install: command()
    .optional()
    .describe(
      'Run instead of install when crash states are explored: the same target as small as it can be.',
    ),
  restore: command()
    .optional()
    .describe(
      'A program that restores one stored state after the other, for thousands of crash states: it reads JSON lines from stdin, ' +
        '{"queue": DIR} to restore what is in a directory, or {NAME: FILE, …} with the names of `files`, and answers each with ' +
        '{"live": [N, …], "names": {N: SHA-256 of a message, …}, "problems": […]} or {"error": "…"}. A number is named once. ' +
        '{NAME: FILE, …, "patches": FILE, "states": [{NAME: [[FROM, TO, AT], …], …}, …]} are several states, each with an answer of its ' +
        'own: each time the bytes of `patches` from AT on are put into what the file was before, from FROM to the one before TO.',
    ),
  queue: pathInData()
    .optional()
    .describe('The directory that `restore` is asked to restore; default: {data} itself.'),
  files: z
    .record(
      z.string().regex(/^(?!(?:queue|patches|states)$)[a-z]+$/, {
        error: 'a name of small letters, other than queue, patches and states',
      }),
      pathInData(),
      {
        error: 'an object of paths relative to {data} by name',
      },
    )
    .optional()
    .describe(
      'Files that are written in full at install and in place ever after, and that hold all that `restore` needs: their ' +
        'bytes are then read straight from the disk image, without mounting it.',
    ),
}).describe('How crash states of the target are explored faster than by starting it on each.');

/** The file that describes a target (DESIGN 5). Unknown keys are errors: a misspelt promise must not go unnoticed. */
export const TargetDefinition = object({
  $schema: z.string().optional().describe('Where the schema of this file is, for editors.'),
  name: z
    .string({ error: 'a name' })
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, { error: 'a name of letters, digits, dots and dashes' })
    .describe('Name of the target, used in reports.'),
  protocol: z
    .enum(PROTOCOL_NAMES, { error: `one of ${PROTOCOL_NAMES.join(', ')}` })
    .describe('How messages go in and come out.'),
  services: z
    .record(
      z.string().regex(/^[A-Za-z0-9][A-Za-z0-9_-]*$/, { error: 'a name of letters, digits and dashes' }),
      Service,
      { error: 'an object of services by name' },
    )
    .refine((services) => Object.keys(services).length > 0, { error: 'at least one service' })
    .describe('The processes of the target, started in this order.'),
  install: command().optional().describe('Run once on a fresh {data}, before the services.'),
  submit: z
    .array(z.string({ error: 'the name of a port' }), { error: 'a list of port names' })
    .min(1, { error: 'at least one port name' })
    .optional()
    .describe('Names of the ports that producers spread over; default: the unnamed {port}.'),
  verify: command()
    .optional()
    .describe(
      'Inspects the stored state, the target live or stopped, and prints one JSON object ' +
        '{ok, problems[], keptAside, live} to stdout.',
    ),
  files: object({
    index: globs().prefault([]).describe('Files that only speed the target up and that it can rebuild.'),
    messages: globs().prefault([]).describe('Files that hold messages.'),
  })
    .optional()
    .describe('Where index-loss and data-rot aim; globs relative to {data}.'),
  sources: z
    .array(z.string({ error: 'a path relative to {dir}' }).min(1, { error: 'a path relative to {dir}' }), {
      error: 'a list of paths relative to {dir}',
    })
    .optional()
    .describe(
      'Files and folders, relative to {dir}, that are the target as well as those which its commands name: a certificate ' +
        'speaks of exactly these.',
    ),
  crashStates: CrashStates.optional(),
  guarantee: Guarantee,
});

/** What is written in a target file. */
export type TargetInput = z.input<typeof TargetDefinition>;
export type TargetFile = z.output<typeof TargetDefinition>;
export type Guarantee = TargetFile['guarantee'];
export type DuplicateBound = Guarantee['duplicatesPerCrash'];

/** A target definition together with the folder that `{dir}` stands for. */
export interface Target extends TargetFile {
  /** Absolute. */
  dir: string;
}

/** The text of the published JSON Schema of target files; `target.schema.json` is exactly this. */
export function targetJsonSchema(): string {
  const schema = z.toJSONSchema(TargetDefinition, { io: 'input' });
  return `${JSON.stringify({ title: 'PlugPull target definition', ...schema }, null, 2)}\n`;
}
