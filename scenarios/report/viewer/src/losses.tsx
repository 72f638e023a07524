import { useMemo } from 'preact/hooks';
import type { ProducerLoss } from '../../html/model.js';
import { FLAG, hasFlag, type RunView, type Selection } from './run-view.js';
import { Scroll } from './scroll.js';
import { countOf } from './text.js';

const WHERE: Readonly<Record<ProducerLoss['where'], string>> = {
  none: 'nothing',
  prefix: 'the first ones',
  middle: 'a run in the middle',
  suffix: 'the last ones',
  scattered: 'several places',
  all: 'all',
};
/** Upper bound of the rows. */
const MAX_ROWS = 40;
/** Number of parts of a strip. A producer with more messages has several of them in a part. */
const MAX_PARTS = 120;

/** View 4: what each producer lost, in the order of its confirmed messages. */
export function Losses({
  view,
  runIndex,
  select,
}: {
  view: RunView;
  runIndex: number;
  select: (selection: Selection) => void;
}) {
  const rows = view.run.producers.filter(({ lost }) => lost > 0);
  const confirmed = useMemo(() => confirmedOf(view), [view]);
  if (rows.length === 0) return null;
  return (
    <>
      <h3 id="losses">Losses by producer</h3>
      <p>
        A strip shows the confirmed messages of a producer in their order; filled parts are lost. If a crash
        takes what was not on the disk yet, the last messages before the crash are lost.
      </p>
      <Scroll label="Losses by producer">
        <table>
          <thead>
            <tr>
              <th scope="col">Producer</th>
              <th scope="col">Round</th>
              <th scope="col">Lost</th>
              <th scope="col">Where</th>
              <th scope="col">Strip</th>
            </tr>
          </thead>
          <tbody>
            {rows.slice(0, MAX_ROWS).map(({ producer, round, confirmed: count, lost, where }) => {
              const messages = confirmed.get(`${round} ${producer}`) ?? [];
              const first = messages.find((index) => hasFlag(view.run, index, FLAG.lost));
              return (
                <tr key={`${round} ${producer}`}>
                  <td>
                    {first === undefined ? (
                      producer
                    ) : (
                      <button
                        type="button"
                        class="link"
                        onClick={() => select({ kind: 'message', run: runIndex, index: first })}
                      >
                        producer {producer}
                      </button>
                    )}
                  </td>
                  <td>{round}</td>
                  <td>
                    {lost} of {count}
                  </td>
                  <td>{WHERE[where]}</td>
                  <td>
                    <Strip view={view} messages={messages} />
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </Scroll>
      {rows.length > MAX_ROWS && <p>And {rows.length - MAX_ROWS} more.</p>}
    </>
  );
}

function Strip({ view, messages }: { view: RunView; messages: readonly number[] }) {
  const parts = Math.min(MAX_PARTS, Math.max(1, messages.length));
  const lost = new Array<number>(parts).fill(0);
  const size = messages.length / parts;
  for (const [place, index] of messages.entries()) {
    const part = Math.min(parts - 1, Math.floor(place / size));
    if (hasFlag(view.run, index, FLAG.lost)) lost[part] = (lost[part] ?? 0) + 1;
  }
  const total = lost.reduce((one, other) => one + other, 0);
  return (
    <svg
      class="strip"
      viewBox={`0 0 ${parts} 1`}
      preserveAspectRatio="none"
      role="img"
      aria-label={`${total} lost of ${countOf(messages.length, 'message')}`}
    >
      {lost.map((count, part) => {
        const share = size === 0 ? 0 : Math.min(1, count / size);
        return share === 0 ? null : <rect key={part} x={part} y={1 - share} width={1.02} height={share} />;
      })}
    </svg>
  );
}

/** Returns the confirmed messages of each producer in each round, in order of submit. */
function confirmedOf({ run }: RunView): Map<string, number[]> {
  const { producer, round, outcome } = run.messages;
  const found = new Map<string, number[]>();
  for (let index = 0; index < producer.length; index++) {
    if (outcome[index] !== 0) continue;
    const key = `${round[index]} ${producer[index]}`;
    const own = found.get(key);
    if (own === undefined) found.set(key, [index]);
    else own.push(index);
  }
  return found;
}
