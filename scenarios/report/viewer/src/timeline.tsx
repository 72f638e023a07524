import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import type { ReportModel } from '../../html/model.js';
import { AXIS_HEIGHT, drawTimeline, type Mark, TRACK_HEIGHT } from './draw-timeline.js';
import { prepareCanvas, usePalette, useWidth } from './palette.js';
import type { RunView, Selection } from './run-view.js';
import { around, pan, type Range } from './scale.js';
import { marksOf } from './story.js';
import { countOf } from './text.js';
import { Tooltip } from './tooltip.js';
import { describeItem, itemAt, type Place, selectionOf, tracksOf } from './tracks.js';
import { useZoom } from './use-zoom.js';

interface Props {
  model: ReportModel;
  runIndex: number;
  view: RunView;
  selection: Selection | null;
  select: (selection: Selection) => void;
}

/** The shortest part that can be shown: one millisecond. */
const SHORTEST_TICKS = 10;
/** The part around a chosen message or fault is at least this long: 0.2 seconds. */
const CHOSEN_TICKS = 2000;
/** Distance in pixels at which the pointer reaches an item, and up to which a press is a click and no drag. */
const REACH = 8;
const CLICK_REACH = 4;

const HINT =
  'Plus and minus zoom, left and right go to the next event of a row, up and down change the row, Shift with left or right moves, 0 shows the whole run, Enter opens the message or fault.';

/** View 3: what happened when, on a canvas that zooms. */
export function Timeline({ model, runIndex, view, selection, select }: Props) {
  const whole = useMemo((): Range => ({ from: 0, to: Math.max(SHORTEST_TICKS, view.run.endTick) }), [view]);
  const tracks = useMemo(() => tracksOf(view), [view]);
  const marks = useMemo(() => marksOf(model, view, selection), [model, view, selection]);
  const [cursor, setCursor] = useState<Place | null>(null);
  const [hover, setHover] = useState<(Place & { x: number; y: number }) | null>(null);
  const frame = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const drag = useRef<{ x: number; range: Range; moved: boolean } | null>(null);
  const width = useWidth(frame);
  const palette = usePalette();
  const {
    range,
    setRange,
    placeAt: tickAt,
    zoomBy,
    onKey,
  } = useZoom({
    ...{ canvas, width, whole, shortest: SHORTEST_TICKS, start: () => whole },
  });

  useEffect(() => showMarks(marks, whole, setRange), [marks, whole]);
  useLayoutEffect(() => {
    const height = tracks.length * TRACK_HEIGHT + AXIS_HEIGHT;
    const context = canvas.current && width > 0 ? prepareCanvas(canvas.current, width, height) : null;
    if (context !== null) drawTimeline(context, { view, tracks, range, width, cursor, marks, palette });
  }, [view, tracks, range, width, cursor, marks, palette]);
  const placeAt = (x: number, y: number): Place | null => {
    const track = Math.floor(y / TRACK_HEIGHT);
    const found = tracks[track];
    if (found === undefined) return null;
    const item = itemAt(found, tickAt(x), (REACH / Math.max(1, width)) * (range.to - range.from));
    return item < 0 ? null : { track, item };
  };
  const open = (place: Place | null) => {
    const track = place === null ? undefined : tracks[place.track];
    const chosen =
      place === null || track === undefined ? undefined : selectionOf(runIndex, track, place.item);
    if (chosen !== undefined) select(chosen);
  };
  const moveCursor = (rows: number, items: number) => {
    const track = Math.min(tracks.length - 1, Math.max(0, (cursor?.track ?? 0) + rows));
    const found = tracks[track];
    if (found === undefined || found.ticks.length === 0) return setCursor({ track, item: -1 });
    const tick =
      cursor === null ? tickAt(width / 2) : (tracks[cursor.track]?.ticks[cursor.item] ?? tickAt(width / 2));
    const start = rows === 0 && cursor !== null ? cursor.item : itemAt(found, tick, Number.POSITIVE_INFINITY);
    const item = Math.min(found.ticks.length - 1, Math.max(0, start + (cursor === null ? 0 : items)));
    setCursor({ track, item });
    const at = found.ticks[item] ?? 0;
    if (at < range.from || at > range.to) {
      const half = (range.to - range.from) / 2;
      setRange(around({ from: at, to: at }, whole, half * 2));
    }
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const centre = cursor === null ? undefined : tracks[cursor.track]?.ticks[cursor.item];
    onKey(event, centre, {
      ArrowLeft: () => moveCursor(0, -1),
      ArrowRight: () => moveCursor(0, 1),
      ArrowUp: () => moveCursor(-1, 0),
      ArrowDown: () => moveCursor(1, 0),
      Enter: () => open(cursor),
    });
  };
  const onPointerMove = (event: PointerEvent) => {
    const [x, y] = [event.offsetX, event.offsetY];
    const from = drag.current;
    if (from === null) {
      const place = placeAt(x, y);
      return setHover(place && { ...place, x, y });
    }
    if (Math.abs(x - from.x) > CLICK_REACH) from.moved = true;
    if (from.moved) setRange(pan(from.range, whole, (from.x - x) / Math.max(1, width)));
  };
  const linesOf = (place: Place | null): string[] => {
    const track = place === null ? undefined : tracks[place.track];
    if (place === null || track === undefined) return [];
    return place.item < 0 ? [`${track.label}: nothing`] : describeItem(model, view.run, track, place.item);
  };
  return (
    <>
      <div class="buttons">
        <button type="button" onClick={() => zoomBy(0.5)}>
          Zoom in
        </button>
        <button type="button" onClick={() => zoomBy(2)}>
          Zoom out
        </button>
        <button type="button" onClick={() => setRange(pan(range, whole, -0.5))}>
          Earlier
        </button>
        <button type="button" onClick={() => setRange(pan(range, whole, 0.5))}>
          Later
        </button>
        <button type="button" onClick={() => setRange(whole)}>
          Whole run
        </button>
      </div>
      <div ref={frame} class="plot">
        {/* biome-ignore lint/a11y/noInteractiveElementToNoninteractiveRole: a canvas has no role of its own. */}
        <canvas
          ref={canvas}
          id="timeline-canvas"
          tabIndex={0}
          role="application"
          aria-label={`Timeline with ${tracks.length} rows: ${tracks.map(({ label }) => label).join(', ')}`}
          aria-describedby="timeline-hint"
          onKeyDown={onKeyDown}
          onPointerDown={(event) => {
            drag.current = { x: event.offsetX, range, moved: false };
            canvas.current?.setPointerCapture(event.pointerId);
          }}
          onPointerMove={onPointerMove}
          onPointerUp={(event) => {
            const clicked = drag.current !== null && !drag.current.moved;
            drag.current = null;
            if (!clicked) return;
            const place = placeAt(event.offsetX, event.offsetY);
            setCursor(place);
            open(place);
          }}
          onPointerLeave={() => setHover(null)}
        />
        {hover !== null && <Tooltip {...hover} lines={linesOf(hover)} width={width} />}
      </div>
      <p class="cursor" role="status">
        {linesOf(cursor).join('; ')}
      </p>
      {view.run.omittedEvents > 0 && (
        <p class="warning">
          <b>Not shown:</b> {countOf(view.run.omittedEvents, 'event')} of messages that need no judgement. The
          history is too long for a report.
        </p>
      )}
      <p class="legend">
        <span class="fail">▼</span> crash, <span class="doubt">▼</span> other fault, <span>▽</span> fault that
        missed, <span class="pass">▲</span> ready again, <span class="fail">×</span> process killed by the
        kit, <span class="fail">□</span> process exited by itself. Shaded: from the fault until ready again.
      </p>
      <p class="hint" id="timeline-hint">
        Click an event to see its story; click the timeline and use the wheel to zoom, drag to move. {HINT}
      </p>
    </>
  );
}

function showMarks(marks: readonly Mark[], whole: Range, setRange: (range: Range) => void): void {
  if (marks.length === 0) return;
  const ticks = marks.map(({ tick }) => tick);
  setRange(around({ from: Math.min(...ticks), to: Math.max(...ticks) }, whole, CHOSEN_TICKS));
}
