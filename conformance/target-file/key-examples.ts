const COMMAND = ['{dir}/queue', '--data', '{data}', '--port', '{port}'];
const GUARANTEE = { faults: ['kill', 'pause', 'power-cut'], duplicatesPerCrash: 0, recoverySeconds: 30 };

/** A value for every key of a target file, by the path of the key; `*` stands for the name of a service. */
export const KEY_EXAMPLES: Readonly<Record<string, unknown>> = {
  $schema: 'target.schema.json',
  name: 'my-queue',
  protocol: 'http',
  services: { server: { command: COMMAND } },
  'services.*': { command: COMMAND },
  'services.*.command': COMMAND,
  'services.*.image': 'debian:12',
  'services.*.env': { QUEUE_DATA: '{data}' },
  'services.*.user': 'nobody',
  'services.*.nodes': ['a', 'b'],
  nodes: ['a', 'b', 'c'],
  install: ['make', '-C', '{dir}'],
  promote: ['{dir}/queue', '--promote', '{data}'],
  submit: ['in'],
  verify: ['{dir}/queue', '--verify', '{data}'],
  files: { index: ['*.index'], messages: ['log*'] },
  'files.index': ['*.index'],
  'files.messages': ['log*'],
  'files.scratch': ['*.lock'],
  nudge: ['{dir}/queue', '--flush', '{port}'],
  sources: ['src'],
  crashStates: { restore: ['{dir}/restore'] },
  'crashStates.install': ['{dir}/install', '--small', '{data}'],
  'crashStates.restore': ['{dir}/restore'],
  'crashStates.queue': 'queue',
  guarantee: GUARANTEE,
  'guarantee.faults': GUARANTEE.faults,
  'guarantee.duplicatesPerCrash': 0,
  'guarantee.duplicatesPerPowerCut': { consumedWithinSeconds: 1 },
  'guarantee.duplicatesAfterIndexLoss': 'unbounded',
  'guarantee.inDeliveryPerSession': 1,
  'guarantee.recoverySeconds': 30,
  'guarantee.redeliverySeconds': 6,
  'guarantee.headers': 'may-be-completed',
  'guarantee.order': 'per-producer',
  'guarantee.cluster': { tolerates: 1, electionSeconds: 30 },
  'guarantee.cluster.tolerates': 1,
  'guarantee.cluster.electionSeconds': 30,
};

/**
 * Adds an example to a problem of a target file: the value of the key that it names, or that was probably meant.
 * @param problem `key path: what was expected`.
 */
export function withExample(problem: string): string {
  const path = /^([\w$.-]+): /.exec(problem)?.[1];
  if (path === undefined) return problem;
  const words = path.split('.');
  const meant = /: unknown key, .*\(did you mean (\w+)\?\)$/.exec(problem)?.[1];
  if (meant !== undefined) words[words.length - 1] = meant;
  // The path of a wrong element leads to its list, and that of a wrong variable to `env`.
  for (let length = words.length; length > 0; length--) {
    const key = words
      .slice(0, length)
      .map((word, index) => (index === 1 && words[0] === 'services' ? '*' : word))
      .join('.');
    const name = words[length - 1] ?? '';
    if (Object.hasOwn(KEY_EXAMPLES, key))
      return `${problem}; for example ${JSON.stringify(name)}: ${JSON.stringify(KEY_EXAMPLES[key])}`;
    // An unknown key that resembles none says nothing about the key above it.
    if (problem.includes(': unknown key, ')) return problem;
  }
  return problem;
}
