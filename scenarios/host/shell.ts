/** A word as it has to be typed at a shell. */
export function shellQuote(argument: string): string {
  return /^[\w./,:=@%+-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'\\''`)}'`;
}
