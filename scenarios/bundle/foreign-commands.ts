import { commandsIn, type TargetCommand } from '../../conformance/target-file/commands.js';
import { shellQuote } from '../host/shell.js';
import type { Manifest } from './manifest.js';
import { targetDirOf } from './target.js';

/** Characters that a terminal does not show as they are: controls, formats such as a change of direction, separators. */
const UNSEEN = /[\p{C}\p{Zl}\p{Zp}]/u;
const EACH_UNSEEN = /[\p{C}\p{Zl}\p{Zp}\\']/gu;

/** What a replay of a bundle would run, for people and for `--json`. */
export interface ForeignCommands {
  /** Directory that `{dir}` stands for. */
  dir: string;
  /** The runtime in which a replay starts the services. The option `--runtime` chooses another one. */
  runtime: string;
  commands: TargetCommand[];
}

/** Returns every command that a replay of a bundle could run. */
export function foreignCommandsOf({ target, case: failedCase }: Manifest): ForeignCommands {
  return {
    dir: targetDirOf(target),
    runtime: failedCase.kind === 'gate' ? failedCase.runtime : 'process',
    commands: commandsIn(target.definition),
  };
}

/** Formats the commands of a bundle as lines. They show where each word of a command begins, and every character of it. */
export function describeForeignCommands({ dir, runtime, commands }: ForeignCommands): string[] {
  const user = process.geteuid?.() === 0 ? 'root' : 'you';
  const lines = commands.map(({ key, command, image, user: own, env }) => {
    const variables = Object.entries(env ?? {}).map(([name, value]) => `${name}=${quote(value)}`);
    const where = [
      ...(own === undefined ? [] : [`as the user ${quote(own)}`]),
      ...(image === undefined ? [] : [`under docker and vm in the image ${quote(image)}`]),
    ];
    const suffix = where.length === 0 ? '' : `  (${where.join(', ')})`;
    return `  ${key}: ${[...variables, ...command.map(quote)].join(' ')}${suffix}`;
  });
  return [`commands in this bundle, run as ${user} under ${runtime}, with {dir} = ${quote(dir)}:`, ...lines];
}

/** Quotes a word for a shell; characters that cannot be seen become escapes. */
function quote(word: string): string {
  if (!UNSEEN.test(word)) return shellQuote(word);
  const escaped = word.replaceAll(EACH_UNSEEN, (char) => {
    if (char === '\\' || char === "'") return `\\${char}`;
    const code = char.codePointAt(0) ?? 0;
    return code < 0x80
      ? `\\x${code.toString(16).padStart(2, '0')}`
      : `\\U${code.toString(16).padStart(8, '0')}`;
  });
  return `$'${escaped}'`;
}
