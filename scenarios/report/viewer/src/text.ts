/*
 * Text of a report. Everything that came from a target, a stranger or a file name is shown as text nodes, and what
 * cannot be seen in it is made visible here.
 */
import { TICKS_PER_MS } from '../../html/columns.js';

/** Controls, formats (bidirectional controls, zero-width characters), line separators and lone surrogates. */
const INVISIBLE = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]/u;
const ALL_INVISIBLE = new RegExp(INVISIBLE.source, 'gu');

/** Returns a text in which every character can be seen: `\u{202e}` in place of the character. */
export function visible(text: string): string {
  if (!INVISIBLE.test(text)) return text;
  return text.replace(ALL_INVISIBLE, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);
}

/** Makes every string of a JSON value visible, in place where that is possible. */
export function makeVisible<T>(value: T): T {
  if (typeof value === 'string') return visible(value) as T;
  if (Array.isArray(value)) {
    // Most of a report are columns of numbers.
    if (typeof value[0] === 'number') return value;
    for (let index = 0; index < value.length; index++) value[index] = makeVisible(value[index]);
  } else if (typeof value === 'object' && value !== null) {
    const record = value as Record<string, unknown>;
    for (const key of Object.keys(record)) record[key] = makeVisible(record[key]);
  }
  return value;
}

/** Formats a time of a run: `12.345 s`. */
export function formatTick(tick: number): string {
  return `${(tick / TICKS_PER_MS / 1000).toFixed(3)} s`;
}

/** Formats a length of time: `12 ms`, `1.25 s`, `2 min 5 s`. */
export function formatMs(ms: number): string {
  if (ms < 10) return `${Math.round(ms * 10) / 10} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 100_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

/** Formats a number with thousands separators: `12,345`. */
export function formatCount(count: number): string {
  return `${count}`.replace(/\B(?=(\d{3})+$)/g, ',');
}

/** Formats a number with its noun: `1 message`, `2 messages`. */
export function countOf(count: number, noun: string, plural = `${noun}s`): string {
  return `${formatCount(count)} ${count === 1 ? noun : plural}`;
}
