import type { FaultRow, MatrixCell, ReportModel } from '../../html/model.js';
import type { Selection } from './run-view.js';
import { Scroll } from './scroll.js';
import { countOf, formatCount } from './text.js';
import { VerdictMark } from './verdict-mark.js';

interface Props {
  model: ReportModel;
  select: (selection: Selection) => void;
}

/** Name of the column for violations that no fault explains. */
const NO_FAULT = 'no fault';

function hasViolation(matrix: readonly MatrixCell[], index: number): boolean {
  return matrix.some(({ fault, violations }) => fault === index && violations > 0);
}

/** View 2: the requirements as rows, the faults as columns; a cell says how often a fault hit and what was at risk. */
export function Matrix({ model, select }: Props) {
  const { requirements, faults, matrix } = model;
  const numbered = faults.map((fault, index) => ({ ...fault, index }));
  const used = numbered.filter(({ index }) => matrix.some(({ fault }) => fault === index));
  // The column of violations that no fault explains has no hit either.
  const hitting = used.filter(({ hit, index }) => hit > 0 || hasViolation(matrix, index));
  // Columns without any hit would hide the others. Without hits at all they are all there is.
  const columns = hitting.length > 0 ? hitting : used;
  const others = numbered.filter((one) => !columns.includes(one));
  const rows = requirements.map((one, row) => ({ ...one, row }));
  const unclaimed = rows.filter(({ verdict }) => verdict === 'not-claimed');
  const cells = new Map(matrix.map((cell) => [`${cell.requirement} ${cell.fault}`, cell]));
  return (
    <>
      <p>
        Each cell: hits of the fault, and confirmed messages at risk at these hits. Choose a cell to see the
        evidence.
      </p>
      <Scroll label="Requirements and faults">
        <table class="matrix">
          <thead>
            <tr>
              <th scope="col">Requirement</th>
              <th scope="col">Verdict</th>
              {columns.map(({ name, tried, hit }) => (
                <th key={name} scope="col">
                  {name}
                  <small>{name === NO_FAULT ? 'none explains it' : `${hit} of ${tried} hit`}</small>
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows
              .filter((one) => !unclaimed.includes(one))
              .map(({ id, title, verdict, why, row }) => (
                <tr key={id}>
                  <th scope="row">
                    {id} {title}
                    <small>{why}</small>
                  </th>
                  <td>
                    <VerdictMark verdict={verdict} />
                  </td>
                  {columns.map(({ index, name }) => (
                    <td key={name}>
                      <Cell
                        model={model}
                        cell={cells.get(`${row} ${index}`)}
                        name={`${id}, ${name}`}
                        select={select}
                      />
                    </td>
                  ))}
                </tr>
              ))}
          </tbody>
        </table>
      </Scroll>
      {others.length > 0 && <FaultsWithoutHit faults={others} />}
      {unclaimed.length > 0 && (
        <details>
          <summary>{countOf(unclaimed.length, 'requirement')} that the target does not claim</summary>
          <ul>
            {unclaimed.map(({ id, title }) => (
              <li key={id}>
                {id} {title}
              </li>
            ))}
          </ul>
        </details>
      )}
    </>
  );
}

function FaultsWithoutHit({ faults }: { faults: readonly FaultRow[] }) {
  return (
    <details>
      <summary>{countOf(faults.length, 'fault')} without a hit</summary>
      <Scroll label="Faults without a hit">
        <table>
          <thead>
            <tr>
              <th scope="col">Fault</th>
              <th scope="col">Tried</th>
              <th scope="col">Why</th>
              <th scope="col">What to do</th>
            </tr>
          </thead>
          <tbody>
            {faults.map(({ name, tried, why, remedy }) => (
              <tr key={name}>
                <th scope="row">{name}</th>
                <td>{tried}</td>
                <td>{why === '' && tried === 0 ? 'not tried before the run ended' : why}</td>
                <td>{remedy}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </details>
  );
}

function Cell({ model, cell, name, select }: Props & { cell: MatrixCell | undefined; name: string }) {
  if (cell === undefined) return null;
  const { hits, atRisk, violations, verdict } = cell;
  const evidence = evidenceOf(model, cell);
  const text = (
    <>
      <VerdictMark verdict={verdict} />
      <small>
        {[
          ...(model.faults[cell.fault]?.name === NO_FAULT
            ? []
            : [hits === 0 ? 'no hit' : countOf(hits, 'hit')]),
          // Where something was violated, something was at risk, although it may not have been counted.
          ...(hits === 0 || (atRisk === 0 && violations > 0) ? [] : [`${formatCount(atRisk)} at risk`]),
          ...(violations > 0 ? [countOf(violations, 'violation')] : []),
        ].join(', ')}
      </small>
    </>
  );
  if (evidence === undefined) return <span class="cell">{text}</span>;
  return (
    <button
      type="button"
      class="cell"
      aria-description={`Show the evidence of ${name}`}
      onClick={() => select(evidence)}
    >
      {text}
    </button>
  );
}

/** Chooses what shows a cell best: a message that this fault took, or the hit with most messages at risk. */
function evidenceOf(model: ReportModel, { requirement, fault, verdict }: MatrixCell): Selection | undefined {
  const id = model.requirements[requirement]?.id;
  if (verdict === 'fail') {
    for (const { requirement: violated, run, messageIndex } of model.summary.violations) {
      const view = model.runs[run];
      const injection = view?.injections[view.messages.lostBy[messageIndex] ?? -1];
      const isOfNone = model.faults[fault]?.name === NO_FAULT && injection === undefined;
      if (violated === id && messageIndex >= 0 && (injection?.fault === fault || isOfNone))
        return { kind: 'message', run, index: messageIndex };
    }
  }
  if (model.faults[fault]?.name === 'crash-states' && model.exploration?.broken[0] !== undefined)
    return { kind: 'state', index: 0 };
  let best: Selection | undefined;
  let bestWeight = -1;
  for (const [run, { injections }] of model.runs.entries())
    for (const [index, injection] of injections.entries()) {
      const weight = (injection.hit ? 1 : 0) + injection.atRisk + 1e6 * injection.lost;
      if (injection.fault === fault && weight > bestWeight) {
        best = { kind: 'injection', run, index };
        bestWeight = weight;
      }
    }
  return best;
}
