import { TICKS_PER_MS } from '../../html/columns.js';
import type { Palette } from './palette.js';
import { lowerBound, type RunView } from './run-view.js';
import { axisPlaces, type Range } from './scale.js';
import { laneEnd, type Place, type Track } from './tracks.js';

/** Height of a row in pixels: a line with its label, and below it its items. */
const LABEL_HEIGHT = 16;
const BODY_HEIGHT = 20;
export const TRACK_HEIGHT = LABEL_HEIGHT + BODY_HEIGHT + 4;
export const AXIS_HEIGHT = 22;
/** With more items per pixel than this, a row shows how many there are instead of each. */
const MAX_ITEMS_PER_PIXEL = 0.25;

/** A vertical line of the chosen message. */
export interface Mark {
  tick: number;
  label: string;
}

/** What the timeline shows. */
export interface Scene {
  view: RunView;
  tracks: readonly Track[];
  range: Range;
  width: number;
  cursor: Place | null;
  marks: readonly Mark[];
  palette: Palette;
}

/** Draws the timeline in CSS pixels. */
export function drawTimeline(context: CanvasRenderingContext2D, scene: Scene): void {
  const { tracks, width, palette } = scene;
  const height = tracks.length * TRACK_HEIGHT + AXIS_HEIGHT;
  context.clearRect(0, 0, width, height);
  context.font = '12px system-ui, sans-serif';
  context.textBaseline = 'middle';
  const xOf = (tick: number) => ((tick - scene.range.from) / (scene.range.to - scene.range.from)) * width;
  drawBands(context, scene, xOf, height);
  for (const [index, track] of tracks.entries()) {
    const top = index * TRACK_HEIGHT;
    context.fillStyle = palette.line;
    context.fillRect(0, top + TRACK_HEIGHT - 1, width, 1);
    drawTrack(context, scene, track, top + LABEL_HEIGHT, xOf);
    drawLabel(context, scene, track.label, top);
  }
  drawAxis(context, scene, xOf, height);
  drawMarks(context, scene, xOf, height);
  drawCursor(context, scene, xOf);
}

/** The time of each fault that hit, until the target was ready again. */
function drawBands(
  context: CanvasRenderingContext2D,
  { view, palette, width }: Scene,
  xOf: (tick: number) => number,
  height: number,
): void {
  context.fillStyle = palette.band;
  for (const { hit, sinceTick, tick, healedTick, recoveredTick } of view.run.injections) {
    if (!hit) continue;
    const left = xOf(sinceTick);
    const right = Math.max(left + 1, xOf(Math.max(tick, healedTick, recoveredTick)));
    if (right < 0 || left > width) continue;
    context.fillRect(left, 0, right - left, height - AXIS_HEIGHT);
  }
}

function drawTrack(
  context: CanvasRenderingContext2D,
  scene: Scene,
  track: Track,
  top: number,
  xOf: (tick: number) => number,
): void {
  if (track.kind === 'injections') drawInjections(context, scene, top, xOf);
  else if (track.kind === 'lane') drawLane(context, scene, track, top, xOf);
  else drawPoints(context, scene, track, top, xOf);
}

function drawInjections(
  context: CanvasRenderingContext2D,
  { view, palette, width }: Scene,
  top: number,
  xOf: (tick: number) => number,
): void {
  const middle = top + BODY_HEIGHT / 2;
  for (const { tick, hit, scope, recoveredTick, recoveryFailure } of view.run.injections) {
    const x = xOf(tick);
    if (recoveredTick >= 0) {
      context.fillStyle = palette.pass;
      triangle(context, xOf(recoveredTick), middle, 5, -1);
      context.fill();
    }
    if (x < -10 || x > width + 10) continue;
    context.fillStyle = scope === 'none' ? palette.doubt : palette.fail;
    context.strokeStyle = palette.muted;
    triangle(context, x, middle, 7, 1);
    if (hit) context.fill();
    else context.stroke();
    if (recoveryFailure === '') continue;
    context.fillStyle = palette.fail;
    context.fillText('never ready again', x + 10, middle);
  }
}

function drawLane(
  context: CanvasRenderingContext2D,
  { palette, width, range }: Scene,
  track: Extract<Track, { kind: 'lane' }>,
  top: number,
  xOf: (tick: number) => number,
): void {
  const middle = top + BODY_HEIGHT / 2;
  for (let item = 0; item < track.ticks.length; item++) {
    const start = track.ticks[item] ?? 0;
    const end = Math.min(laneEnd(track, item), range.to + 1);
    if (end < range.from || start > range.to) continue;
    const left = Math.max(-1, xOf(start));
    const right = Math.min(width + 1, xOf(end));
    context.fillStyle = palette.muted;
    context.fillRect(left, middle - 5, Math.max(1, right - left), 10);
    if (end > range.to) continue;
    // A cross ends it: red if the kit killed it, a hollow square if it exited by itself.
    context.strokeStyle = palette.fail;
    context.lineWidth = 2;
    context.beginPath();
    if (track.lane.expected[item] === 0) context.rect(right - 4, middle - 4, 8, 8);
    else {
      context.moveTo(right - 4, middle - 7);
      context.lineTo(right + 4, middle + 7);
      context.moveTo(right + 4, middle - 7);
      context.lineTo(right - 4, middle + 7);
    }
    context.stroke();
    context.lineWidth = 1;
  }
}

function drawPoints(
  context: CanvasRenderingContext2D,
  { palette, width, range }: Scene,
  { ticks, tone }: Extract<Track, { kind: 'points' }>,
  top: number,
  xOf: (tick: number) => number,
): void {
  context.fillStyle = palette[tone];
  const first = lowerBound(ticks, range.from);
  const end = lowerBound(ticks, range.to + 1);
  if (end - first <= width * MAX_ITEMS_PER_PIXEL) {
    for (let item = first; item < end; item++)
      context.fillRect(xOf(ticks[item] ?? 0) - 1, top + 2, 2, BODY_HEIGHT - 4);
    return;
  }
  const counts = new Uint32Array(Math.ceil(width / 2) + 1);
  for (let item = first; item < end; item++) {
    const column = Math.min(counts.length - 1, Math.max(0, Math.floor(xOf(ticks[item] ?? 0) / 2)));
    counts[column] = (counts[column] ?? 0) + 1;
  }
  const most = counts.reduce((one, other) => Math.max(one, other), 1);
  for (const [column, count] of counts.entries()) {
    if (count === 0) continue;
    // The root keeps single events visible beside hundreds.
    const height = Math.max(3, Math.sqrt(count / most) * BODY_HEIGHT);
    context.fillRect(column * 2, top + BODY_HEIGHT - height, 2, height);
  }
}

function drawLabel(context: CanvasRenderingContext2D, { palette }: Scene, label: string, top: number): void {
  context.fillStyle = palette.muted;
  context.fillText(label, 4, top + LABEL_HEIGHT / 2 + 1);
}

function drawAxis(
  context: CanvasRenderingContext2D,
  { palette, width, range }: Scene,
  xOf: (tick: number) => number,
  height: number,
): void {
  const perSecond = TICKS_PER_MS * 1000;
  const seconds = { from: range.from / perSecond, to: range.to / perSecond };
  const places = axisPlaces(seconds, width / 90);
  const step = (places[1] ?? 1) - (places[0] ?? 0);
  const digits = step >= 1 ? 0 : Math.min(4, Math.ceil(-Math.log10(step)));
  for (const place of places) {
    const x = xOf(place * perSecond);
    context.fillStyle = palette.line;
    context.fillRect(x, 0, 1, height - AXIS_HEIGHT + 4);
    context.fillStyle = palette.muted;
    const text = `${place.toFixed(digits)} s`;
    const left = Math.min(
      Math.max(0, x - context.measureText(text).width / 2),
      width - context.measureText(text).width,
    );
    context.fillText(text, left, height - AXIS_HEIGHT / 2 + 2);
  }
}

function drawMarks(
  context: CanvasRenderingContext2D,
  { marks, palette, width }: Scene,
  xOf: (tick: number) => number,
  height: number,
): void {
  context.strokeStyle = palette.accent;
  context.setLineDash([4, 3]);
  for (const [index, { tick, label }] of marks.entries()) {
    const x = xOf(tick);
    if (x < 0 || x > width) continue;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, height - AXIS_HEIGHT);
    context.stroke();
    const size = context.measureText(label).width;
    const left = x + 4 + size > width ? x - 4 - size : x + 4;
    // Each label in a row of its own: marks may be close together.
    const top = (index + 0.5) * LABEL_HEIGHT + TRACK_HEIGHT;
    context.fillStyle = palette.back;
    context.fillRect(left - 2, top - 8, size + 4, 16);
    context.fillStyle = palette.accent;
    context.fillText(label, left, top);
  }
  context.setLineDash([]);
}

function drawCursor(
  context: CanvasRenderingContext2D,
  { cursor, tracks, palette }: Scene,
  xOf: (tick: number) => number,
): void {
  const track = cursor === null ? undefined : tracks[cursor.track];
  if (cursor === null || track === undefined) return;
  const x = xOf(track.ticks[cursor.item] ?? 0);
  context.strokeStyle = palette.accent;
  context.lineWidth = 2;
  context.strokeRect(x - 8, cursor.track * TRACK_HEIGHT + LABEL_HEIGHT - 2, 16, BODY_HEIGHT + 4);
  context.lineWidth = 1;
}

/** Makes a triangle the path: its point down (1) or up (-1). */
function triangle(
  context: CanvasRenderingContext2D,
  x: number,
  middle: number,
  size: number,
  down: 1 | -1,
): void {
  context.beginPath();
  context.moveTo(x - size, middle - size * down);
  context.lineTo(x + size, middle - size * down);
  context.lineTo(x, middle + size * down);
  context.closePath();
}
