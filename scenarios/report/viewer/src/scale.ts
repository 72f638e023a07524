/** A part of an axis. */
export interface Range {
  from: number;
  to: number;
}

/** Makes a part shorter (`factor` below 1) or longer around a place, and keeps it within the whole. */
export function zoom(range: Range, whole: Range, factor: number, centre: number, shortest: number): Range {
  const length = Math.min(whole.to - whole.from, Math.max(shortest, (range.to - range.from) * factor));
  const share = (centre - range.from) / (range.to - range.from || 1);
  return fit({ from: centre - share * length, to: centre + (1 - share) * length }, whole);
}

/** Moves a part by a share of its length. */
export function pan(range: Range, whole: Range, share: number): Range {
  const by = (range.to - range.from) * share;
  return fit({ from: range.from + by, to: range.to + by }, whole);
}

/** Returns a part around a piece, with a margin on both sides. */
export function around(piece: Range, whole: Range, shortest: number): Range {
  const length = Math.max(shortest, (piece.to - piece.from) * 1.5);
  const middle = (piece.from + piece.to) / 2;
  return fit({ from: middle - length / 2, to: middle + length / 2 }, whole);
}

/** Moves a part into the whole, and shortens it if it is longer. */
function fit({ from, to }: Range, whole: Range): Range {
  const length = Math.min(to - from, whole.to - whole.from);
  const start = Math.min(Math.max(from, whole.from), whole.to - length);
  return { from: start, to: start + length };
}

/** Returns round places for the labels of an axis, at most `most`, and no closer than `closest`. */
export function axisPlaces({ from, to }: Range, most: number, closest = 0): number[] {
  const raw = Math.max(closest, (to - from) / Math.max(1, most));
  if (!(raw > 0)) return [from];
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= raw) ?? raw;
  const places: number[] = [];
  for (let place = Math.ceil(from / step) * step; place <= to; place += step) places.push(place);
  return places;
}
