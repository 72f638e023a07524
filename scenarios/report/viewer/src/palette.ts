import { useEffect, useState } from 'preact/hooks';

/** Colours of the plots: those of the style sheet, because a canvas does not know it. */
export interface Palette {
  text: string;
  muted: string;
  line: string;
  back: string;
  pass: string;
  fail: string;
  doubt: string;
  accent: string;
  band: string;
}

/** Returns the colours, again when the reader changes between light and dark. */
export function usePalette(): Palette {
  const [palette, setPalette] = useState(readPalette);
  useEffect(() => {
    const dark = matchMedia('(prefers-color-scheme: dark)');
    const update = () => setPalette(readPalette());
    dark.addEventListener('change', update);
    return () => dark.removeEventListener('change', update);
  }, []);
  return palette;
}

function readPalette(): Palette {
  const style = getComputedStyle(document.documentElement);
  const read = (name: string) => style.getPropertyValue(`--${name}`).trim() || '#888';
  return {
    text: read('text'),
    muted: read('muted'),
    line: read('line'),
    back: read('back'),
    pass: read('pass'),
    fail: read('fail'),
    doubt: read('doubt'),
    accent: read('accent'),
    band: read('band'),
  };
}

/** Returns the width of an element in pixels, again when it changes; 0 before it is known. */
export function useWidth(element: { current: HTMLElement | null }): number {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const { current } = element;
    if (current === null) return;
    const observer = new ResizeObserver(() => setWidth(current.clientWidth));
    observer.observe(current);
    setWidth(current.clientWidth);
    return () => observer.disconnect();
  }, [element]);
  return width;
}

/** Prepares a canvas for drawing in CSS pixels, sharp on every screen. */
export function prepareCanvas(
  canvas: HTMLCanvasElement,
  width: number,
  height: number,
): CanvasRenderingContext2D | null {
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext('2d');
  context?.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}
