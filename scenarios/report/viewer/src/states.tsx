import type { BrokenState, ExplorationModel } from '../../html/model.js';
import { CopyLine } from './copy.js';
import type { Selection } from './run-view.js';
import { Scroll } from './scroll.js';
import { countOf, formatCount } from './text.js';

/** Upper bound of the broken states that are listed. */
const MAX_LISTED = 25;

/** Says how many states of the chosen cut fail. */
export function CutText({
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
export function States({
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
  const ownState = chosenState?.position === position ? chosenState : here[0]?.state;
  // Before a choice, the first one: it is the smallest.
  const shown = position === undefined ? all[0]?.state : ownState;
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
