/** Upper bound for the command lines that a warning names. */
const MAX_NAMED = 3;
const MAX_COMMAND_CHARS = 160;

/**
 * Makes the warning about processes that had escaped from their service when the target ended.
 * @param name name of the target.
 * @param commands their command lines, each one once.
 * @returns one line, or nothing when no process had escaped.
 */
export function escapeWarnings(name: string, commands: readonly string[]): string[] {
  if (commands.length === 0) return [];
  const named = commands.slice(0, MAX_NAMED).map((command) => command.slice(0, MAX_COMMAND_CHARS));
  const more = commands.length > MAX_NAMED ? `, and ${commands.length - MAX_NAMED} more` : '';
  return [
    `${name} left processes that had escaped from its services; they were killed: ${named.join('; ')}${more}`,
  ];
}
