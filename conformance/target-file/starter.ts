import { KitError } from '../errors.js';
import { didYouMean } from '../nearest.js';
import { TargetDefinition, type TargetInput } from './definition.js';

/** Arguments that a protocol needs in a command, besides the data directory and the port. */
const EXTRA_ARGUMENTS: Readonly<Record<string, readonly string[]>> = { smtp: ['--next-hop', '{sink}'] };

/** Returns the names of the protocols that a target can use. */
export function protocolNames(): string[] {
  return [...TargetDefinition.shape.protocol.options];
}

/**
 * Makes a complete and valid target definition that an author can edit.
 * @param services `several`: a store that keeps the messages, and a front that accepts them.
 * @throws KitError bad-usage when the protocol is unknown or the name is invalid.
 */
export function starterTarget(
  name: string,
  protocol: string,
  services: 'one' | 'several' = 'one',
): TargetInput {
  const extra = EXTRA_ARGUMENTS[protocol] ?? [];
  const definition = {
    name,
    protocol,
    services:
      services === 'one'
        ? {
            server: { command: ['{dir}/your-queue', '--data', '{data}', '--port', '{port}', ...extra] },
          }
        : {
            store: { command: ['{dir}/your-store', '--data', '{data}', '--port', '{port:store}', ...extra] },
            front: { command: ['{dir}/your-front', '--port', '{port}', '--store', '{port:store}'] },
          },
    guarantee: { faults: ['kill', 'pause', 'tear', 'power-cut'], duplicatesPerCrash: 0, recoverySeconds: 30 },
  };
  const parsed = TargetDefinition.safeParse(definition);
  if (parsed.success) return definition as TargetInput;
  const [issue] = parsed.error.issues;
  const isProtocol = issue?.path[0] === 'protocol';
  const flag = isProtocol ? `--protocol ${protocol}` : `--name ${name}`;
  const hint = isProtocol ? didYouMean(protocol, protocolNames()) : '';
  throw new KitError('bad-usage', `${flag}: expected ${issue?.message}${hint}`);
}
