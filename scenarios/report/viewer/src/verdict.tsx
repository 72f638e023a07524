import type { Basis, Diagnosis, NotMeasured, ReportModel, Violation } from '../../html/model.js';
import { CopyLine } from './copy.js';
import { findMessage, type Selection } from './run-view.js';
import { Scroll } from './scroll.js';
import { countOf, formatCount } from './text.js';
import { VerdictMark } from './verdict-mark.js';

interface Props {
  model: ReportModel;
  select: (selection: Selection) => void;
}

/** Upper bound of the violations that are listed at once. */
const MAX_VIOLATIONS = 50;

/** View 1: what failed and why, how to run it again, what was not measured, and what the verdict rests on. */
export function Verdict({ model, select }: Props) {
  const { summary, diagnoses } = model;
  const facts = new Set(diagnoses.flatMap((diagnosis) => diagnosis.facts));
  // The facts of a cause may be the lines of the story: then they are on the page already.
  const story = summary.story.some((line) => facts.has(line)) ? [] : summary.story;
  return (
    <>
      <p class={`sentence ${summary.verdict}`}>
        <VerdictMark verdict={summary.verdict} />: {summary.sentence}
      </p>
      {diagnoses.map((diagnosis) => (
        <Cause key={diagnosis.sentence} model={model} diagnosis={diagnosis} select={select} />
      ))}
      {!diagnoses.some(({ fix }) => fix !== '') && model.fixIt !== '' && (
        <p class="fix">
          <FixPage link={model.fixIt} />
        </p>
      )}
      {summary.replay.length > 0 && (
        <>
          <h3>Run it again</h3>
          {summary.replay.map((line, index) => (
            <CopyLine key={line} text={line} label={`command ${index + 1}`} />
          ))}
        </>
      )}
      {story.length > 0 && (
        <>
          <h3>What happened to one message</h3>
          <ol class="story">
            {story.map((line) => (
              <li key={line}>{line}</li>
            ))}
          </ol>
        </>
      )}
      {summary.warnings.map((warning) => (
        <p key={warning} class="warning">
          <b>Warning:</b> {warning}
        </p>
      ))}
      {summary.violations.length > 0 && <Violations model={model} select={select} />}
      {summary.notMeasured.length > 0 && (
        <NotMeasuredTable rows={summary.notMeasured} open={summary.verdict === 'not-measured'} />
      )}
      <h3>{summary.verdict === 'pass' ? 'What the pass rests on' : 'What was measured'}</h3>
      <BasisText basis={summary.basis} />
    </>
  );
}

function Cause({ model, diagnosis, select }: Props & { diagnosis: Diagnosis }) {
  const { sentence, facts, fix, certainty, example, run, injection } = diagnosis;
  const message = example === null ? undefined : findMessage(model, example);
  // The verdict may have said it already, in the same words.
  const isSaid = model.summary.sentence.includes(sentence.replace(/\.$/, ''));
  return (
    <article class="cause">
      <h3>
        Cause{' '}
        <small>{certainty === 'proven' ? 'shown by this run' : 'seen in a traced run of this target'}</small>
      </h3>
      {!isSaid && <p class="cause-sentence">{sentence}</p>}
      {facts.length > 0 && (
        <ul>
          {facts.map((fact) => (
            <li key={fact}>{fact}</li>
          ))}
        </ul>
      )}
      {fix !== '' && (
        <p class="fix">
          <b>Fix it:</b> {fix.replace(/\.$/, '')}. <FixPage link={diagnosis.fixIt || model.fixIt} />
        </p>
      )}
      <p class="links">
        {message !== undefined && (
          <button type="button" onClick={() => select(message)}>
            Show message {example} in the timeline
          </button>
        )}
        {run >= 0 && injection >= 0 && (
          <button type="button" onClick={() => select({ kind: 'injection', run, index: injection })}>
            Show the fault
          </button>
        )}
      </p>
    </article>
  );
}

/** Names the page that explains how to fix a violation. A file on a disk cannot link into the package of the kit. */
function FixPage({ link }: { link: string }) {
  if (link === '') return null;
  return (
    <span>
      More causes and fixes are in <code>{link}</code>
    </span>
  );
}

function Violations({ model, select }: Props) {
  const { violations } = model.summary;
  const button = ({ message, run, messageIndex }: Violation) =>
    message === null ? (
      ''
    ) : messageIndex < 0 ? (
      message
    ) : (
      <button
        type="button"
        class="link"
        onClick={() => select({ kind: 'message', run, index: messageIndex })}
      >
        {message}
      </button>
    );
  return (
    <details>
      <summary>{countOf(violations.length, 'violation')}</summary>
      <Scroll label="Violations">
        <table>
          <thead>
            <tr>
              <th scope="col">Requirement</th>
              <th scope="col">Message</th>
              <th scope="col">What</th>
            </tr>
          </thead>
          <tbody>
            {violations.slice(0, MAX_VIOLATIONS).map((violation, index) => (
              <tr key={`${index}-${violation.message}`}>
                <td>{violation.requirement}</td>
                <td>{button(violation)}</td>
                <td>{violation.what}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {violations.length > MAX_VIOLATIONS && <p>And {violations.length - MAX_VIOLATIONS} more.</p>}
    </details>
  );
}

function NotMeasuredTable({ rows, open }: { rows: readonly NotMeasured[]; open: boolean }) {
  return (
    <details open={open || rows.length <= 4}>
      <summary>{countOf(rows.length, 'thing')} not measured, and how to get there</summary>
      <Scroll label="What was not measured">
        <table>
          <thead>
            <tr>
              <th scope="col">Not measured</th>
              <th scope="col">Why</th>
              <th scope="col">What to do</th>
            </tr>
          </thead>
          <tbody>
            {rows.map(({ what, why, remedy }) => (
              <tr key={what}>
                <td>
                  <span aria-hidden="true">○ </span>
                  {what}
                </td>
                <td>{why}</td>
                <td>{remedy}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </details>
  );
}

function BasisText({ basis }: { basis: Basis }) {
  const figures: [string, string][] = [];
  if (basis.statesJudged > 0)
    figures.push([
      'crash states judged',
      `${formatCount(basis.statesJudged)}, ${formatCount(basis.statesAtRisk)} with something at risk`,
    ]);
  figures.push(['faults that hit', `${basis.faultsHit} of ${basis.faultsClaimed} claimed`]);
  if (basis.injections > 0)
    figures.push(
      ['injections that hit', `${basis.injectionsHit} of ${basis.injections}`],
      [
        'messages at risk at crashes',
        `${formatCount(basis.atRiskTotal)}, at most ${basis.atRiskMost} at one`,
      ],
    );
  figures.push(
    ['confirmed', `${formatCount(basis.confirmed)} of ${formatCount(basis.submitted)}`],
    ['rejected', formatCount(basis.rejected)],
    ['indefinite', formatCount(basis.indefinite)],
    ['delivered', formatCount(basis.delivered)],
  );
  // An exploration loses messages in its states and not in the run that it records: a zero would mislead.
  if (basis.injections > 0 || basis.statesJudged === 0)
    figures.push(
      ['lost', formatCount(basis.lost)],
      ...(basis.notDelivered > 0
        ? [['not delivered', formatCount(basis.notDelivered)] as [string, string]]
        : []),
      ['duplicates', formatCount(basis.duplicates)],
      ['delivered changed', formatCount(basis.corrupted)],
    );
  if (basis.rounds > 0) figures.push(['rounds', `${basis.rounds}`]);
  return (
    <dl class="figures">
      {figures.map(([name, figure]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{figure}</dd>
        </div>
      ))}
    </dl>
  );
}
