import t from 'tap';
import { commandsIn } from '../../conformance/target-file/commands.js';
import { type TargetFile, targetJsonSchema } from '../../conformance/target-file/definition.js';
import { describeForeignCommands } from './foreign-commands.js';

interface SchemaNode {
  type?: string;
  minItems?: number;
  items?: SchemaNode;
  properties?: Record<string, SchemaNode>;
  additionalProperties?: SchemaNode | boolean;
}

/** Lists of strings that a target file must not leave empty and that are no commands. */
const NO_COMMANDS = ['submit', 'guarantee.faults', 'services.*.nodes', 'nodes'];

/** Returns the key paths of the commands in the schema of target files, with `*` for the name of a service. */
function commandPaths(node: SchemaNode, path: readonly string[] = []): string[] {
  const isCommand = node.type === 'array' && node.items?.type === 'string' && node.minItems === 1;
  if (isCommand && !NO_COMMANDS.includes(path.join('.'))) return [path.join('.')];
  const children = Object.entries(node.properties ?? {});
  if (typeof node.additionalProperties === 'object') children.push(['*', node.additionalProperties]);
  return children.flatMap(([key, child]) => commandPaths(child, [...path, key]));
}

t.test('every command of a target file is shown before it runs', async (t) => {
  const paths = commandPaths(JSON.parse(targetJsonSchema()) as SchemaNode);
  t.ok(paths.length >= 6, paths.join());
  // One target with every command of the schema; each command is its own path.
  const target: Record<string, unknown> = {};
  for (const path of paths) {
    const keys = path.split('.');
    const last = keys.pop() ?? '';
    let place = target;
    for (const key of keys) {
      place[key] ??= {};
      place = place[key] as Record<string, unknown>;
    }
    place[last] = [`run-${path}`];
  }
  const commands = commandsIn(target as unknown as TargetFile);
  const lines = describeForeignCommands({ dir: '/d', runtime: 'process', commands }).join('\n');
  for (const path of paths) t.match(lines, `run-${path}`);
});

t.test('the lines show variables, users and images, and hide no character', async (t) => {
  const [head, ...lines] = describeForeignCommands({
    dir: '/a b',
    runtime: 'docker',
    commands: [
      {
        key: 'services.server',
        command: ['sh', '-c', 'id\u001b[2K\r\u202e x', "it's"],
        image: 'evil:latest',
        user: 'daemon',
        env: { LD_PRELOAD: '/tmp/x.so' },
      },
    ],
  });
  t.match(head, /under docker, with \{dir\} = '\/a b':$/);
  t.same(lines, [
    `  services.server: LD_PRELOAD=/tmp/x.so sh -c $'id\\x1b[2K\\x0d\\U0000202e x' 'it'\\''s'  (as the user daemon, under docker and vm in the image evil:latest)`,
  ]);
});
