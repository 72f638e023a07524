/** Factors of the units of a size. */
export const SIZE_UNITS: Record<string, number> = {
  '': 1,
  B: 1,
  kB: 1e3,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** Factors of the units of a duration, in milliseconds. */
export const DURATION_UNITS_MS: Record<string, number> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
};

/** Parses a size such as `64MiB`, `1GB` or `4096` into bytes. Returns undefined if the text is not a size. */
export function parseSize(text: string): number | undefined {
  return parseWithUnit(text, SIZE_UNITS);
}

/**
 * Parses a duration such as `250ms`, `10s` or `1h` into milliseconds. A bare number is in milliseconds. Returns
 * undefined if the text is not a duration.
 */
export function parseDurationMs(text: string): number | undefined {
  return parseWithUnit(text, { '': 1, ...DURATION_UNITS_MS });
}

function parseWithUnit(text: string, units: Record<string, number>): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(text.trim());
  const factor = match === null ? undefined : units[match[2] ?? ''];
  if (match === null || factor === undefined) return undefined;
  const value = Number(match[1]) * factor;
  return Number.isSafeInteger(value) ? value : undefined;
}
