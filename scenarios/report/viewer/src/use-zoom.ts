import type { RefObject } from 'preact';
import { useEffect, useState } from 'preact/hooks';
import { pan, type Range, zoom } from './scale.js';

interface ZoomOptions {
  canvas: RefObject<HTMLCanvasElement | null>;
  /** Width of the canvas in pixels. */
  width: number;
  whole: Range;
  /** Length of the shortest part that can be shown. */
  shortest: number;
  /** Returns the part that is shown first. */
  start: () => Range;
}

/** The part of a canvas plot that is shown, and what changes it. */
export interface Zoom {
  range: Range;
  setRange: (range: Range) => void;
  /** Returns the place on the axis at a distance in pixels from the left. */
  placeAt: (x: number) => number;
  zoomBy: (factor: number, centre?: number) => void;
  /** Runs the action of a key, if it has one. The keys that zoom and move need no action of their own. */
  onKey: (event: KeyboardEvent, centre: number | undefined, actions: Record<string, () => void>) => void;
}

/** Keeps the shown part of a canvas plot, and lets the wheel and the keys change it. */
export function useZoom({ canvas, width, whole, shortest, start }: ZoomOptions): Zoom {
  const [range, setRange] = useState(start);
  const placeAt = (x: number) => range.from + (x / Math.max(1, width)) * (range.to - range.from);
  const zoomBy = (factor: number, centre = (range.from + range.to) / 2) =>
    setRange(zoom(range, whole, factor, centre, shortest));
  const onKey: Zoom['onKey'] = (event, centre, { ArrowLeft, ArrowRight, ...others }) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const move = (part: number) => () => setRange(pan(range, whole, part));
    const actions: Record<string, (() => void) | undefined> = {
      ...others,
      '+': () => zoomBy(0.5, centre),
      '=': () => zoomBy(0.5, centre),
      '-': () => zoomBy(2, centre),
      '0': () => setRange(whole),
      ArrowLeft: event.shiftKey ? move(-0.25) : ArrowLeft,
      ArrowRight: event.shiftKey ? move(0.25) : ArrowRight,
    };
    const action = actions[event.key];
    if (action === undefined) return;
    event.preventDefault();
    action();
  };
  useEffect(() => {
    const { current } = canvas;
    // A wheel scrolls the page unless the plot has the focus or Ctrl is held.
    const onWheel = (event: WheelEvent) => {
      if (document.activeElement !== current && !event.ctrlKey) return;
      event.preventDefault();
      zoomBy(event.deltaY > 0 ? 1.25 : 0.8, placeAt(event.offsetX));
    };
    current?.addEventListener('wheel', onWheel, { passive: false });
    return () => current?.removeEventListener('wheel', onWheel);
  });
  return { range, setRange, placeAt, zoomBy, onKey };
}
