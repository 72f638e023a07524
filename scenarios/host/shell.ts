/** Quotes an argument for a shell, if it needs quotes. */
export function shellQuote(argument: string): string {
  return /^[\w./,:=@%+-]+$/.test(argument) ? argument : `'${argument.replaceAll("'", `'\\''`)}'`;
}
