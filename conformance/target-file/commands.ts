import type { TargetFile } from './definition.js';

/** A command that a target file makes the kit run, with its key path. */
export interface TargetCommand {
  key: string;
  command: readonly string[];
  /** Container image in which it runs under the runtimes docker and vm; undefined when it never does. */
  image?: string;
  /** User as which it runs; undefined: the user of the kit. */
  user?: string;
  /** Additional environment variables. */
  env?: Readonly<Record<string, string>>;
}

/** Returns every command that a target file can make the kit run. */
export function commandsIn(
  target: Pick<TargetFile, 'services' | 'install' | 'verify' | 'nudge' | 'promote' | 'crashStates'>,
): TargetCommand[] {
  const { services, install, verify, nudge, promote, crashStates } = target;
  const others = {
    install,
    verify,
    nudge,
    promote,
    'crashStates.install': crashStates?.install,
    'crashStates.restore': crashStates?.restore,
  };
  return [
    ...Object.entries(services).map(([name, { command, image, user, env }]) => ({
      key: `services.${name}`,
      command,
      ...(image === undefined ? {} : { image }),
      ...(user === undefined ? {} : { user }),
      ...(env === undefined ? {} : { env }),
    })),
    ...Object.entries(others).flatMap(([key, command]) => (command === undefined ? [] : [{ key, command }])),
  ];
}
