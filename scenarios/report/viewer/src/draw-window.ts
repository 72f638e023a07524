import type { ExplorationModel } from '../../html/model.js';
import type { Palette } from './palette.js';
import { lowerBound } from './run-view.js';
import { axisPlaces, type Range } from './scale.js';

/** Heights in pixels: the bars, a row of marks below them, and the axis. */
const BARS_HEIGHT = 150;
const ROW_HEIGHT = 34;
const AXIS_HEIGHT = 22;
const ROWS = ['confirmations', 'flushes', 'blamed: written and not synced in time'] as const;
export const WINDOW_HEIGHT = BARS_HEIGHT + ROWS.length * ROW_HEIGHT + AXIS_HEIGHT;
const TOP = 18;

/** Returns the row of the plot at a height. */
export function rowAt(y: number): 'cuts' | 'confirmations' | 'flushes' | 'blamed' {
  if (y < BARS_HEIGHT) return 'cuts';
  if (y < BARS_HEIGHT + ROW_HEIGHT) return 'confirmations';
  return y < BARS_HEIGHT + 2 * ROW_HEIGHT ? 'flushes' : 'blamed';
}

/** What the plot of the vulnerability window shows. */
export interface WindowScene {
  exploration: ExplorationModel;
  cuts: Float64Array;
  flushes: Float64Array;
  confirmations: Float64Array;
  range: Range;
  width: number;
  /** Index of the chosen cut; -1: none. */
  chosen: number;
  palette: Palette;
}

/** Draws the share of states that fail over the place of the cut, with flushes, confirmations and the blamed sync. */
export function drawWindow(context: CanvasRenderingContext2D, scene: WindowScene): void {
  const { width, palette, range } = scene;
  context.clearRect(0, 0, width, WINDOW_HEIGHT);
  context.font = '12px system-ui, sans-serif';
  context.textBaseline = 'middle';
  const xOf = (position: number) => ((position - range.from) / (range.to - range.from)) * width;
  drawExposure(context, scene, xOf);
  drawBars(context, scene, xOf);
  drawMarks(context, scene.confirmations, scene, xOf, 0, palette.pass);
  drawMarks(context, scene.flushes, scene, xOf, 1, palette.accent);
  for (const [row, label] of ROWS.entries()) {
    const top = BARS_HEIGHT + row * ROW_HEIGHT;
    context.fillStyle = palette.line;
    context.fillRect(0, top, width, 1);
    context.fillStyle = palette.muted;
    context.fillText(label, 4, top + 9);
  }
  context.fillStyle = palette.muted;
  context.fillText('100 %', 4, TOP - 9);
  drawBlamed(context, scene, xOf);
  const bottom = BARS_HEIGHT + ROWS.length * ROW_HEIGHT;
  context.fillStyle = palette.line;
  context.fillRect(0, TOP, width, 1);
  context.fillRect(0, bottom, width, 1);
  for (const place of axisPlaces(range, width / 80, 1)) {
    const text = `${Math.round(place)}`;
    const left = Math.min(
      Math.max(0, xOf(place) - context.measureText(text).width / 2),
      width - context.measureText(text).width,
    );
    context.fillStyle = palette.muted;
    context.fillText(text, left, bottom + AXIS_HEIGHT / 2);
  }
}

/** The part of the log in which the message of the blamed sync was confirmed and not safe. */
function drawExposure(
  context: CanvasRenderingContext2D,
  { exploration, palette }: WindowScene,
  xOf: (position: number) => number,
): void {
  const { blamed, broken, entries } = exploration;
  if (blamed === null) return;
  const { message, confirmedAt, flushAt } = blamed;
  // A flush saves only what was written by then: a state after it may lack the message as well.
  const lacking = broken.filter(({ examples }) => message !== null && examples.includes(message));
  const last = Math.max(flushAt ?? entries, ...lacking.map(({ position }) => position));
  context.fillStyle = palette.band;
  context.fillRect(
    xOf(confirmedAt),
    TOP,
    Math.max(2, xOf(last) - xOf(confirmedAt)),
    WINDOW_HEIGHT - AXIS_HEIGHT - TOP,
  );
}

function drawBars(
  context: CanvasRenderingContext2D,
  scene: WindowScene,
  xOf: (position: number) => number,
): void {
  const { cuts, exploration, chosen, palette, width } = scene;
  const { states, failed, atRisk } = exploration.cuts;
  const size = Math.max(2, Math.min(12, xOf(1) - xOf(0) - 1));
  const height = BARS_HEIGHT - TOP;
  for (let index = 0; index < cuts.length; index++) {
    const x = xOf(cuts[index] ?? 0);
    if (x < -size || x > width + size) continue;
    const share = (failed[index] ?? 0) / Math.max(1, states[index] ?? 1);
    if (share > 0) {
      context.fillStyle = palette.fail;
      const bar = Math.max(4, share * height);
      context.fillRect(x - size / 2, BARS_HEIGHT - bar, size, bar);
    } else {
      context.fillStyle = (atRisk[index] ?? 0) > 0 ? palette.pass : palette.muted;
      context.fillRect(x - size / 2, BARS_HEIGHT - 3, size, 3);
    }
    if (index !== chosen) continue;
    context.strokeStyle = palette.accent;
    context.lineWidth = 2;
    context.strokeRect(x - size / 2 - 3, TOP - 2, size + 6, height + 2);
    context.lineWidth = 1;
  }
}

function drawMarks(
  context: CanvasRenderingContext2D,
  places: Float64Array,
  { range }: WindowScene,
  xOf: (position: number) => number,
  row: number,
  colour: string,
): void {
  const top = BARS_HEIGHT + row * ROW_HEIGHT;
  context.fillStyle = colour;
  const end = lowerBound(places, range.to + 1);
  for (let index = lowerBound(places, range.from); index < end; index++)
    context.fillRect(xOf(places[index] ?? 0) - 1, top + 18, 2, 13);
}

function drawBlamed(
  context: CanvasRenderingContext2D,
  scene: WindowScene,
  xOf: (position: number) => number,
): void {
  const { exploration, palette } = scene;
  const { blamed } = exploration;
  if (blamed === null) return;
  const middle = BARS_HEIGHT + 2 * ROW_HEIGHT + 25;
  context.fillStyle = palette.fail;
  if (blamed.writes.length === 0)
    context.fillText('its bytes are in no request', Math.max(4, xOf(blamed.confirmedAt) + 4), middle);
  for (const write of blamed.writes) context.fillRect(xOf(write) - 3, middle - 6, 6, 12);
  drawFlag(context, xOf(blamed.confirmedAt), 'confirmed', 'left', palette.pass, scene);
  if (blamed.flushAt !== null)
    drawFlag(context, xOf(blamed.flushAt), 'next flush', 'right', palette.accent, scene);
}

/** A vertical line with its name above it. */
function drawFlag(
  context: CanvasRenderingContext2D,
  x: number,
  label: string,
  side: 'left' | 'right',
  colour: string,
  { width, palette }: WindowScene,
): void {
  if (x < 0 || x > width) return;
  context.fillStyle = colour;
  context.fillRect(x, TOP, 1, WINDOW_HEIGHT - AXIS_HEIGHT - TOP);
  const size = context.measureText(label).width;
  const left = side === 'left' && x > size + 4 ? x - size - 4 : Math.min(x + 4, width - size);
  context.fillStyle = palette.back;
  context.fillRect(left - 2, 0, size + 4, TOP - 1);
  context.fillStyle = colour;
  context.fillText(label, left, TOP - 9);
}
