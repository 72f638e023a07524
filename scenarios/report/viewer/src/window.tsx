import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks';
import { fromDeltas } from '../../html/columns.js';
import type { BrokenState, ExplorationModel, ReportModel } from '../../html/model.js';
import { CopyLine } from './copy.js';
import { drawWindow, WINDOW_HEIGHT } from './draw-window.js';
import { prepareCanvas, usePalette, useWidth } from './palette.js';
import { nearest, type Selection } from './run-view.js';
import { around, pan, type Range, zoom } from './scale.js';
import { Scroll } from './scroll.js';
import { countOf, formatCount } from './text.js';

interface Props {
  model: ReportModel;
  exploration: ExplorationModel;
  selection: Selection | null;
  select: (selection: Selection) => void;
}

/** The shortest part of the log that can be shown. */
const SHORTEST = 6;
/** Distance in pixels at which a click reaches a cut. */
const REACH = 12;
/** A longer log is first shown around the blamed sync, or the first broken state. */
const LONG_LOG = 150;
/** Upper bound of the broken states that are listed. */
const MAX_LISTED = 25;

/** View 5: at which places of the write log a power cut loses a confirmed message, and why. */
export function Window({ model, exploration, selection, select }: Props) {
  const cuts = useMemo(() => fromDeltas(exploration.cuts.position), [exploration]);
  const flushes = useMemo(() => fromDeltas(exploration.flushes), [exploration]);
  const confirmations = useMemo(() => fromDeltas(exploration.confirmations.position), [exploration]);
  const whole = useMemo(() => wholeOf(exploration, cuts), [exploration, cuts]);
  const [range, setRange] = useState(() => startRange(exploration, whole));
  const [chosen, setChosen] = useState(-1);
  const frame = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const width = useWidth(frame);
  const palette = usePalette();
  const state = selection?.kind === 'state' ? exploration.broken[selection.index] : undefined;
  // The verdict may have said it already, in the same words.
  const isSaid = model.summary.sentence.includes(exploration.blamed?.sentence.replace(/\.$/, '') ?? '');
  const failing = exploration.cuts.failed.filter((count) => count > 0).length;

  useEffect(() => {
    if (state === undefined) return;
    setChosen(cuts.indexOf(state.position));
    const centre = exploration.blamed?.confirmedAt ?? state.position;
    setRange(
      around({ from: Math.min(centre, state.position), to: Math.max(centre, state.position) }, whole, 60),
    );
  }, [state, cuts, whole, exploration]);
  useLayoutEffect(() => {
    const context = canvas.current && width > 0 ? prepareCanvas(canvas.current, width, WINDOW_HEIGHT) : null;
    if (context !== null)
      drawWindow(context, { exploration, cuts, flushes, confirmations, range, width, chosen, palette });
  }, [exploration, cuts, flushes, confirmations, range, width, chosen, palette]);
  const positionAt = (x: number) => range.from + (x / Math.max(1, width)) * (range.to - range.from);
  const zoomBy = (factor: number, centre = (range.from + range.to) / 2) =>
    setRange(zoom(range, whole, factor, centre, SHORTEST));
  /** Chooses a cut, and its first listed state if it has one. */
  const choose = (index: number) => {
    const position = cuts[index];
    if (position === undefined) return;
    setChosen(index);
    if (position < range.from || position > range.to)
      setRange(around({ from: position, to: position }, whole, range.to - range.from));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const start = chosen < 0 ? nearest(cuts, positionAt(width / 2)) : chosen;
    const actions: Record<string, () => void> = {
      '+': () => zoomBy(0.5, cuts[chosen]),
      '=': () => zoomBy(0.5, cuts[chosen]),
      '-': () => zoomBy(2, cuts[chosen]),
      '0': () => setRange(whole),
      ArrowLeft: () => (event.shiftKey ? setRange(pan(range, whole, -0.25)) : choose(start - 1)),
      ArrowRight: () => (event.shiftKey ? setRange(pan(range, whole, 0.25)) : choose(start + 1)),
    };
    const action = actions[event.key];
    if (action === undefined) return;
    event.preventDefault();
    action();
  };
  useEffect(() => {
    const { current } = canvas;
    const onWheel = (event: WheelEvent) => {
      if (document.activeElement !== current && !event.ctrlKey) return;
      event.preventDefault();
      zoomBy(event.deltaY > 0 ? 1.25 : 0.8, positionAt(event.offsetX));
    };
    current?.addEventListener('wheel', onWheel, { passive: false });
    return () => current?.removeEventListener('wheel', onWheel);
  });
  const onClick = (event: MouseEvent) => {
    const index = nearest(cuts, positionAt(event.offsetX));
    const distance = Math.abs((cuts[index] ?? 0) - positionAt(event.offsetX));
    if ((distance / (range.to - range.from)) * width <= REACH) choose(index);
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
          Requests {formatCount(Math.max(0, Math.ceil(range.from)))} to {formatCount(Math.floor(range.to))} of{' '}
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
        />
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

function CutText({
  exploration,
  position,
  chosen,
}: {
  exploration: ExplorationModel;
  position: number | undefined;
  chosen: number;
}) {
  if (position === undefined) return null;
  const { states, failed, atRisk } = exploration.cuts;
  return (
    <p>
      <b>Cut after {formatCount(position)} requests:</b> {failed[chosen]} of{' '}
      {countOf(states[chosen] ?? 0, 'state')} fail, {countOf(atRisk[chosen] ?? 0, 'confirmed message')} at
      risk.
    </p>
  );
}

/** The broken states: those of the chosen cut, or all. */
function States({
  exploration,
  position,
  chosenState,
  select,
}: {
  exploration: ExplorationModel;
  position: number | undefined;
  chosenState: BrokenState | undefined;
  select: (selection: Selection) => void;
}) {
  const all = exploration.broken.map((state, index) => ({ state, index }));
  const here = all.filter(({ state }) => state.position === position);
  const listed = here.length > 0 ? here : all;
  if (all.length === 0) return null;
  const shown = chosenState ?? (here[0] ?? all[0])?.state;
  return (
    <>
      {shown !== undefined && <StateText state={shown} />}
      <details>
        <summary>
          {here.length > 0
            ? `${countOf(here.length, 'broken state')} at this cut`
            : countOf(all.length, 'broken state')}
        </summary>
        <Scroll label="Broken states">
          <table>
            <thead>
              <tr>
                <th scope="col">State</th>
                <th scope="col">Cut</th>
                <th scope="col">Lost</th>
                <th scope="col">Files</th>
              </tr>
            </thead>
            <tbody>
              {listed.slice(0, MAX_LISTED).map(({ state, index }) => (
                <tr key={state.address}>
                  <td>
                    <button type="button" class="link" onClick={() => select({ kind: 'state', index })}>
                      {state.address}
                    </button>
                  </td>
                  <td>{state.position}</td>
                  <td>{state.missing}</td>
                  <td>{state.files.map(({ file }) => file).join(', ')}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
        {listed.length + exploration.moreBroken > MAX_LISTED && (
          <p>
            And {formatCount(listed.length + exploration.moreBroken - Math.min(MAX_LISTED, listed.length))}{' '}
            more.
          </p>
        )}
      </details>
    </>
  );
}

function StateText({ state }: { state: BrokenState }) {
  const { address, missing, examples, recoveryFailure, missingWrites, files, replay } = state;
  return (
    <article class="cause" id="state" tabIndex={-1}>
      <h3>
        State <code>{address}</code>
      </h3>
      <ul>
        {recoveryFailure !== '' && <li>The target did not recover: {recoveryFailure}</li>}
        {missing > 0 && (
          <li>
            {countOf(missing, 'confirmed message')} missing: {examples.join(', ')}
          </li>
        )}
        {missingWrites.length > 0 && (
          <li>Writes that had not reached the medium: {missingWrites.join(', ')}</li>
        )}
        {files.map(({ file, what }) => (
          <li key={`${file} ${what}`}>
            <code>{file}</code>: {what}
          </li>
        ))}
      </ul>
      {replay !== '' && <CopyLine text={replay} label={`the command for state ${address}`} />}
    </article>
  );
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
