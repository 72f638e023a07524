import { useEffect, useMemo, useRef } from 'preact/hooks';
import uPlot from 'uplot';
import { TICKS_PER_MS } from '../../html/columns.js';
import type { ReportModel } from '../../html/model.js';
import { type Palette, usePalette, useWidth } from './palette.js';
import { type Rates, ratesOf } from './rates.js';
import type { RunView } from './run-view.js';
import { Scroll } from './scroll.js';
import { formatCount, formatMs } from './text.js';

const HEIGHT = 180;
/** Upper bound of the rows of the table below the curves, and of the table of faults. */
const MAX_ROWS = 40;
const MAX_FAULTS = 200;

/** View 4: confirmations per second and latency, with the times of the faults shaded. */
export function Charts({ model, view }: { model: ReportModel; view: RunView }) {
  const rates = useMemo(() => ratesOf(view), [view]);
  const most = rates.perSecond.reduce((one, other) => Math.max(one, other), 0);
  const slowest = rates.slowestMs.reduce<number>((one, other) => Math.max(one, other ?? 0), 0);
  if (view.confirmed.ticks.length === 0) return null;
  return (
    <>
      <h3 id="rates">Confirmations and latency</h3>
      <p>
        At most {formatCount(Math.round(most))} confirmations a second; the slowest confirmation took{' '}
        {formatMs(slowest)}. Shaded: from a fault until the target is ready again.
      </p>
      <Chart
        view={view}
        label={`Confirmations per second over the run, at most ${Math.round(most)}`}
        seconds={rates.seconds}
        curves={[{ name: 'confirmations a second', colour: 'pass', values: rates.perSecond, filled: true }]}
      />
      <Chart
        view={view}
        label={`Latency of confirmations over the run, at most ${formatMs(slowest)}`}
        seconds={rates.seconds}
        curves={[
          { name: 'median latency, ms', colour: 'accent', values: rates.medianMs, filled: false },
          { name: 'slowest, ms', colour: 'doubt', values: rates.slowestMs, filled: false },
        ]}
      />
      <FaultTable model={model} view={view} />
      <RateTable rates={rates} />
    </>
  );
}

interface Curve {
  name: string;
  colour: 'pass' | 'accent' | 'doubt';
  values: (number | null)[];
  filled: boolean;
}

function Chart({
  view,
  label,
  seconds,
  curves,
}: {
  view: RunView;
  label: string;
  seconds: number[];
  curves: readonly Curve[];
}) {
  const frame = useRef<HTMLDivElement>(null);
  const width = useWidth(frame);
  const palette = usePalette();
  useEffect(() => {
    if (frame.current === null || width === 0) return;
    const plot = new uPlot(
      optionsOf(view, curves, width, palette),
      [seconds, ...curves.map(({ values }) => values)],
      frame.current,
    );
    return () => plot.destroy();
  }, [view, curves[0]?.values, width, palette]);
  return <div ref={frame} class="plot" role="img" aria-label={label} />;
}

function optionsOf(view: RunView, curves: readonly Curve[], width: number, palette: Palette): uPlot.Options {
  const axis = {
    stroke: palette.muted,
    grid: { stroke: palette.line, width: 1 },
    ticks: { stroke: palette.line },
  };
  return {
    width,
    height: HEIGHT,
    scales: { x: { time: false, range: [0, view.run.endTick / TICKS_PER_MS / 1000] } },
    axes: [
      { ...axis, values: (_, places) => places.map((place) => `${place} s`) },
      { ...axis, size: 56 },
    ],
    series: [
      { label: 'time, s' },
      ...curves.map(({ name, colour, filled }) => ({
        label: name,
        stroke: palette[colour],
        ...(filled ? { fill: `${palette[colour]}33` } : {}),
        width: 1.5,
        points: { show: !filled, size: 4 },
      })),
    ],
    hooks: { drawClear: [(plot) => drawBands(plot, view, palette)] },
    cursor: { drag: { x: false, y: false } },
  };
}

function drawBands(plot: uPlot, { run }: RunView, palette: Palette): void {
  const { ctx: context, bbox } = plot;
  context.save();
  context.fillStyle = palette.band;
  for (const { hit, sinceTick, tick, healedTick, recoveredTick } of run.injections) {
    if (!hit) continue;
    const toX = (at: number) => plot.valToPos(at / TICKS_PER_MS / 1000, 'x', true);
    const left = toX(sinceTick);
    context.fillRect(
      left,
      bbox.top,
      Math.max(1, toX(Math.max(tick, healedTick, recoveredTick)) - left),
      bbox.height,
    );
  }
  context.restore();
}

/** The faults as a table, for readers who cannot see the plots. */
function FaultTable({ model, view }: { model: ReportModel; view: RunView }) {
  const { injections } = view.run;
  return (
    <details>
      <summary>Faults as a table</summary>
      <Scroll label="Faults">
        <table>
          <thead>
            <tr>
              <th scope="col">Time</th>
              <th scope="col">Fault</th>
              <th scope="col">Hit</th>
              <th scope="col">At risk</th>
              <th scope="col">Lost</th>
              <th scope="col">Ready again after</th>
            </tr>
          </thead>
          <tbody>
            {injections
              .slice(0, MAX_FAULTS)
              .map(({ tick, fault, number, hit, atRisk, lost, recoveryMs, recoveryFailure }) => (
                <tr key={number}>
                  <td>{(tick / TICKS_PER_MS / 1000).toFixed(2)} s</td>
                  <td>
                    {model.faults[fault]?.name} {number}
                  </td>
                  <td>{hit ? 'yes' : 'no'}</td>
                  <td>{atRisk}</td>
                  <td>{lost}</td>
                  <td>{recoveryFailure !== '' ? 'never' : recoveryMs < 0 ? '' : formatMs(recoveryMs)}</td>
                </tr>
              ))}
          </tbody>
        </table>
      </Scroll>
      {injections.length > MAX_FAULTS && <p>And {injections.length - MAX_FAULTS} more.</p>}
    </details>
  );
}

function RateTable({ rates }: { rates: Rates }) {
  const every = Math.ceil(rates.seconds.length / MAX_ROWS);
  const format = (ms: number | null | undefined) => (ms === null || ms === undefined ? '' : formatMs(ms));
  return (
    <details>
      <summary>Confirmations and latency as a table</summary>
      <Scroll label="Confirmations and latency">
        <table>
          <thead>
            <tr>
              <th scope="col">Time</th>
              <th scope="col">Confirmations a second</th>
              <th scope="col">Median latency</th>
              <th scope="col">Slowest</th>
            </tr>
          </thead>
          <tbody>
            {rates.seconds.map((second, index) =>
              index % every === 0 ? (
                <tr key={second}>
                  <td>{second.toFixed(2)} s</td>
                  <td>{Math.round(rates.perSecond[index] ?? 0)}</td>
                  <td>{format(rates.medianMs[index])}</td>
                  <td>{format(rates.slowestMs[index])}</td>
                </tr>
              ) : null,
            )}
          </tbody>
        </table>
      </Scroll>
    </details>
  );
}
