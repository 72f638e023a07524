import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { fromDeltas } from '../../html/columns.js';
import type { ExplorationModel, ReportModel } from '../../html/model.js';
import { drawWindow, rowAt, WINDOW_HEIGHT } from './draw-window.js';
import { prepareCanvas, usePalette, useWidth } from './palette.js';
import { nearest, type Selection } from './run-view.js';
import { around, type Range } from './scale.js';
import { CutText, States } from './states.js';
import { countOf, formatCount } from './text.js';
import { Tooltip } from './tooltip.js';
import { useZoom } from './use-zoom.js';

interface Props {
  model: ReportModel;
  exploration: ExplorationModel;
  selection: Selection | null;
  select: (selection: Selection) => void;
}

/** The shortest part of the log that can be shown. */
const SHORTEST = 6;
/** Length of the part that is shown around a chosen state. */
const NEAR = 60;
/** Distance in pixels at which a click reaches a cut. */
const REACH = 12;
/** A longer log is first shown around the blamed sync, or the first broken state. */
const LONG_LOG = 150;
/** View 5: at which places of the write log a power cut loses a confirmed message, and why. */
export function Window({ model, exploration, selection, select }: Props) {
  const cuts = useMemo(() => fromDeltas(exploration.cuts.position), [exploration]);
  const flushes = useMemo(() => fromDeltas(exploration.flushes), [exploration]);
  const confirmations = useMemo(() => fromDeltas(exploration.confirmations.position), [exploration]);
  const whole = useMemo(() => wholeOf(exploration, cuts), [exploration, cuts]);
  const [chosen, setChosen] = useState(-1);
  const [hover, setHover] = useState<{ x: number; y: number; line: string } | null>(null);
  const frame = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useWidth(frame);
  const palette = usePalette();
  const {
    range,
    setRange,
    placeAt: positionAt,
    zoomBy,
    onKey,
  } = useZoom({
    ...{ canvas, width, whole, shortest: SHORTEST, start: () => startRange(exploration, whole) },
  });
  const state = selection?.kind === 'state' ? exploration.broken[selection.index] : undefined;
  // The verdict may have said it already, in the same words.
  const isSaid = model.summary.sentence.includes(exploration.blamed?.sentence.replace(/\.$/, '') ?? '');
  const failing = exploration.cuts.failed.filter((count) => count > 0).length;

  useEffect(() => {
    if (state === undefined) return;
    setChosen(cuts.indexOf(state.position));
    const { position } = state;
    const confirmedAt = exploration.blamed?.confirmedAt ?? position;
    // Show the confirmation as well, if it is near.
    const from = Math.abs(confirmedAt - position) < NEAR ? Math.min(confirmedAt, position) : position;
    setRange(around({ from, to: position }, whole, NEAR));
  }, [state, cuts, whole, exploration]);
  useLayoutEffect(() => {
    const context = canvas.current && width > 0 ? prepareCanvas(canvas.current, width, WINDOW_HEIGHT) : null;
    if (context !== null)
      drawWindow(context, { exploration, cuts, flushes, confirmations, range, width, chosen, palette });
  }, [exploration, cuts, flushes, confirmations, range, width, chosen, palette]);
  /** Chooses a cut, and its first listed state if it has one. */
  const choose = (index: number) => {
    const position = cuts[index];
    if (position === undefined) return;
    setChosen(index);
    if (position < range.from || position > range.to)
      setRange(around({ from: position, to: position }, whole, range.to - range.from));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const start = chosen < 0 ? nearest(cuts, positionAt(width / 2)) : chosen;
    onKey(event, cuts[chosen], { ArrowLeft: () => choose(start - 1), ArrowRight: () => choose(start + 1) });
  };
  const onClick = (event: MouseEvent) => {
    const index = nearest(cuts, positionAt(event.offsetX));
    const distance = Math.abs((cuts[index] ?? 0) - positionAt(event.offsetX));
    if ((distance / (range.to - range.from)) * width <= REACH) choose(index);
  };
  const onPointerMove = ({ offsetX: x, offsetY: y }: PointerEvent) => {
    const row = rowAt(y);
    const places = { cuts, flushes, confirmations, blamed: undefined }[row];
    const index = places === undefined ? -1 : nearest(places, positionAt(x));
    const place = places?.[index];
    if (place === undefined || Math.abs(place - positionAt(x)) * width > REACH * (range.to - range.from))
      return setHover(null);
    setHover({ x, y, line: describePlace(model, exploration, row, index, place) });
  };
  return (
    <>
      <p>
        A cut at {failing} of {countOf(cuts.length, 'tried position')} of the write log loses a confirmed
        message.
        {isSaid ? '' : ` ${exploration.blamed?.sentence ?? ''}`}
      </p>
      <div class="buttons">
        <button type="button" onClick={() => zoomBy(0.5)}>
          Zoom in
        </button>
        <button type="button" onClick={() => zoomBy(2)}>
          Zoom out
        </button>
        <button type="button" onClick={() => setRange(whole)}>
          Whole log
        </button>
        <span>
          Requests {formatCount(Math.max(0, Math.ceil(range.from)))} to{' '}
          {formatCount(Math.min(exploration.entries, Math.floor(range.to)))} of{' '}
          {formatCount(exploration.entries)}
        </span>
      </div>
      <div ref={frame} class="plot">
        {/* biome-ignore lint/a11y/noInteractiveElementToNoninteractiveRole: a canvas has no role of its own. */}
        <canvas
          ref={canvas}
          id="window-canvas"
          tabIndex={0}
          role="application"
          aria-label={`Share of crash states that fail, by position of the cut: ${failing} of ${cuts.length} positions fail`}
          aria-describedby="window-hint"
          onKeyDown={onKeyDown}
          onClick={onClick}
          onPointerMove={onPointerMove}
          onPointerLeave={() => setHover(null)}
        />
        {hover !== null && <Tooltip {...hover} lines={[hover.line]} width={width} />}
      </div>
      <p class="legend">
        <span class="fail">▮</span> share of states that fail, <span class="pass">▁</span> every state holds
        what was confirmed, <span>▁</span> nothing was at risk. Shaded: the message of the blamed sync was
        confirmed and not safe. X axis: number of requests to the disk before the cut.
      </p>
      <p class="hint" id="window-hint">
        Click a bar to see its states. Plus and minus zoom, left and right choose the next cut, Shift with
        left or right moves, 0 shows the whole log.
      </p>
      <div role="status">
        <CutText exploration={exploration} position={cuts[chosen]} chosen={chosen} />
      </div>
      <States exploration={exploration} position={cuts[chosen]} chosenState={state} select={select} />
    </>
  );
}

/** Describes what is at a place of the plot. */
function describePlace(
  { runs }: ReportModel,
  { run, cuts, confirmations }: ExplorationModel,
  row: ReturnType<typeof rowAt>,
  index: number,
  place: number,
): string {
  if (row === 'flushes') return `flush: request ${place}`;
  if (row === 'cuts')
    return `cut after ${place} requests: ${cuts.failed[index]} of ${countOf(cuts.states[index] ?? 0, 'state')} fail`;
  const id = runs[run]?.messages.id[confirmations.message[index] ?? -1];
  return `message ${id ?? ''} confirmed after ${place} requests`;
}

function startRange({ blamed, broken }: ExplorationModel, whole: Range): Range {
  const centre = blamed?.confirmedAt ?? broken[0]?.position;
  if (centre === undefined || whole.to - whole.from <= LONG_LOG) return whole;
  return around({ from: centre, to: blamed?.flushAt ?? centre }, whole, LONG_LOG / 3);
}

function wholeOf({ entries, from }: ExplorationModel, cuts: Float64Array): Range {
  const first = Math.min(from, cuts[0] ?? from);
  return { from: first - 1, to: Math.max(first + SHORTEST, entries + 1) };
}
