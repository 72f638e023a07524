import { KitError } from '../errors.js';
import { didYouMean } from '../nearest.js';
import type { TargetFile } from './definition.js';

/** Values that replace the placeholders in the commands of a target. */
export interface PlaceholderValues {
  /** Folder of the target file. */
  dir: string;
  /** The directory under test. */
  data: string;
  /** Directory that survives every crash and is not on the disk under test. */
  scratch: string;
  /** `host:port` of the kit's receiver. */
  sink: string;
  /** Path of the node binary. */
  node: string;
  /** Ports by name; the unnamed `{port}` has the name ''. They are the same on every node. */
  ports: ReadonlyMap<string, number>;
  /** The node on which the command runs; undefined for a target without `nodes`. */
  cluster?: NodeValues | undefined;
}

/** Values of the placeholders that only a cluster has. */
export interface NodeValues {
  /** Name of the node on which the command runs. */
  name: string;
  /** IPv4 addresses of all nodes by name, in the order of the target file. */
  addresses: ReadonlyMap<string, string>;
}

/** Matches `{word}` and `{word:word}`. Other braces, in JSON or in a shell's ${…}, do not match. */
const PLACEHOLDER = /(?<!\$)\{([A-Za-z][\w-]*)(?::([\w-]*))?\}/g;
const KNOWN_PLACEHOLDERS =
  '{dir}, {data}, {scratch}, {port}, {port:name}, {sink}, {node}, {host}, {ip}, {ip:node}, {peers}';
/** The placeholders that only a target with `nodes` has. */
const NODE_PLACEHOLDERS: readonly string[] = ['host', 'ip', 'peers'];

/**
 * Kind of command; it decides which placeholders are allowed. No port and no receiver exist before a service
 * runs.
 */
type CommandKind = 'service' | 'install' | 'verify' | 'nudge' | 'promote';
const ALLOWED_PLACEHOLDERS: Record<CommandKind, readonly string[]> = {
  service: ['dir', 'data', 'scratch', 'node', 'port', 'sink'],
  install: ['dir', 'data', 'scratch', 'node'],
  verify: ['dir', 'data', 'scratch', 'node', 'port'],
  nudge: ['dir', 'data', 'scratch', 'node', 'port', 'sink'],
  promote: ['dir', 'data', 'scratch', 'node', 'port'],
};

/**
 * Returns the command with every placeholder replaced.
 * @throws KitError bad-target when a placeholder is unknown or has no value.
 */
export function expandCommand(command: readonly string[], values: PlaceholderValues): string[] {
  return command.map((word) =>
    word.replace(PLACEHOLDER, (whole: string, name: string, port: string | undefined) => {
      const value =
        name === 'port' ? values.ports.get(port ?? '')?.toString() : simpleValue(name, port, values);
      if (value === undefined)
        throw new KitError('bad-target', `${whole}: expected one of ${KNOWN_PLACEHOLDERS}`);
      return value;
    }),
  );
}

/**
 * Returns the environment variables with every placeholder in their values replaced.
 * @throws KitError bad-target when a placeholder is unknown or has no value.
 */
export function expandVariables(
  variables: Readonly<Record<string, string>>,
  values: PlaceholderValues,
): Record<string, string> {
  const expanded = expandCommand(Object.values(variables), values);
  return Object.fromEntries(Object.keys(variables).map((name, index) => [name, expanded[index] ?? '']));
}

function simpleValue(
  name: string,
  argument: string | undefined,
  values: PlaceholderValues,
): string | undefined {
  const { cluster } = values;
  if (name === 'ip') return cluster?.addresses.get(argument ?? cluster.name);
  if (argument !== undefined) return undefined;
  switch (name) {
    case 'host':
      return cluster?.name;
    case 'peers':
      return cluster && peersOf(cluster);
    case 'dir':
      return values.dir;
    case 'data':
      return values.data;
    case 'scratch':
      return values.scratch;
    case 'sink':
      return values.sink;
    case 'node':
      return values.node;
    default:
      return undefined;
  }
}

/** Returns the other nodes as `NAME=ADDRESS`, separated by commas. */
function peersOf({ name, addresses }: NodeValues): string {
  return [...addresses]
    .filter(([peer]) => peer !== name)
    .map((pair) => pair.join('='))
    .join(',');
}

/** Returns the names of all ports that the services use, in order of appearance; the unnamed port is ''. */
export function portNames(target: TargetFile): string[] {
  const names = new Set<string>();
  for (const service of Object.values(target.services)) {
    const words = [...service.command, ...Object.values(service.env ?? {})];
    for (const { name, argument: after } of placeholdersIn(words)) {
      if (name === 'port') names.add(after ?? '');
    }
  }
  return [...names];
}

/** Returns the names of the ports that producers submit to. */
export function submitPorts(target: TargetFile): string[] {
  return target.submit ?? [''];
}

/** Returns every misuse of placeholders and port names, each as `key path: what was expected`. */
export function placeholderProblems(target: TargetFile): string[] {
  const problems: string[] = [];
  const check = (
    path: string,
    command: readonly string[] | undefined,
    commandKind: CommandKind,
    keys?: readonly string[],
  ) => {
    const nodes = target.nodes ?? [];
    const words = [...ALLOWED_PLACEHOLDERS[commandKind], ...(nodes.length > 0 ? NODE_PLACEHOLDERS : [])];
    for (const { index, whole, name, argument: after } of placeholdersIn(command ?? [])) {
      const place = `${path}.${keys?.[index] ?? index}`;
      if (name === 'ip' && nodes.length > 0 && after !== undefined) {
        if (!nodes.includes(after))
          problems.push(
            `${place}: ${whole}: no such node, expected one of ${nodes.join(', ')}${didYouMean(after, nodes)}`,
          );
        continue;
      }
      const known = words.includes(name) && (after === undefined || (name === 'port' && after !== ''));
      if (!known) {
        const allowed = words.map((word) => `{${word}}`);
        const expected = allowed.join(', ');
        const hint = didYouMean(`{${name}}`, allowed);
        problems.push(`${place}: unknown placeholder ${whole}, expected one of ${expected}${hint}`);
      }
    }
  };
  for (const [name, service] of Object.entries(target.services)) {
    check(`services.${name}.command`, service.command, 'service');
    const { env = {} } = service;
    check(`services.${name}.env`, Object.values(env), 'service', Object.keys(env));
  }
  check('install', target.install, 'install');
  check('verify', target.verify, 'verify');
  check('nudge', target.nudge, 'nudge');
  check('promote', target.promote, 'promote');
  check('crashStates.install', target.crashStates?.install, 'install');
  check('crashStates.restore', target.crashStates?.restore, 'install');
  const ports = portNames(target);
  submitPorts(target).forEach((name, index) => {
    if (ports.includes(name)) return;
    const wanted = name === '' ? '{port}' : `{port:${name}}`;
    problems.push(
      `${target.submit ? `submit.${index}` : 'services'}: expected ${wanted} in the command or env of a service`,
    );
  });
  return problems;
}

/**
 * Returns a problem if no service (command or `env`) and no install command uses `{data}`, as
 * `key path: what was expected`. Such a target keeps its messages where no fault reaches them, and where they outlive
 * the round.
 */
export function unusedDataProblems({ services, install }: TargetFile): string[] {
  const words = [
    ...Object.values(services).flatMap(({ command, env }) => [...command, ...Object.values(env ?? {})]),
    ...(install ?? []),
  ];
  if ([...placeholdersIn(words)].some(({ name, argument }) => name === 'data' && argument === undefined))
    return [];
  return [
    'services: expected {data} in the command or env of a service, or in install: faults reach only what is stored below {data}',
  ];
}

function* placeholdersIn(command: readonly string[]) {
  for (const [index, word] of command.entries()) {
    for (const match of word.matchAll(PLACEHOLDER)) {
      yield { index, whole: match[0], name: match[1] ?? '', argument: match[2] };
    }
  }
}
