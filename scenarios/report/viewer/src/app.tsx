import { useEffect, useMemo, useState } from 'preact/hooks';
import type { ReportModel } from '../../html/model.js';
import { Section } from './boundary.js';
import { Charts } from './charts.js';
import { Files } from './files.js';
import { Losses } from './losses.js';
import { Matrix } from './matrix.js';
import { type Selection, viewRun } from './run-view.js';
import { Story } from './story.js';
import { formatMs } from './text.js';
import { Timeline } from './timeline.js';
import { Verdict } from './verdict.js';
import { Window } from './window.js';

/** The whole report. */
export function App({ model }: { model: ReportModel }) {
  const [selection, setSelection] = useState<Selection | null>(null);
  const [withPlots, setWithPlots] = useState(false);
  // The verdict comes first, on the page as well: decoding a long history takes a while.
  useEffect(() => {
    // A frame may never come, as in a hidden tab and in a screenshot without a screen.
    const timer = setTimeout(() => setWithPlots(true));
    return () => clearTimeout(timer);
  }, []);
  const select = (chosen: Selection) => {
    setSelection(chosen);
    setWithPlots(true);
    // A choice in the plot itself must not move the page.
    if (document.activeElement?.closest('#timeline-canvas, #story, #window') != null) return;
    // Wait until the section shows the choice, then go there.
    setTimeout(() => (chosen.kind === 'state' ? goTo('window', 'state') : goTo('timeline', 'story')));
  };
  return (
    <>
      <header>
        <p>
          <b>PlugPull</b> report of <code>{model.command}</code>
          {model.startedAt === null ? '' : `, ${model.startedAt.slice(0, 16).replace('T', ' ')} UTC`}
          {model.tookMs === null ? '' : `, ${formatMs(model.tookMs)}`}
          {model.seed === null ? '' : `, seed ${model.seed}`}
        </p>
        <Contents model={model} />
      </header>
      <main>
        <h1>{model.target}</h1>
        <Section id="verdict" title="Verdict">
          <Verdict model={model} select={select} />
        </Section>
        {model.matrix.length > 0 && (
          <Section id="matrix" title="Requirements and faults">
            <Matrix model={model} select={select} />
          </Section>
        )}
        {withPlots && <Runs model={model} selection={selection} select={select} />}
      </main>
      <footer>
        <p>
          PlugPull {model.kitVersion}. Written from {model.source}.
        </p>
      </footer>
    </>
  );
}

interface RunsProps {
  model: ReportModel;
  selection: Selection | null;
  select: (selection: Selection) => void;
}

/** What needs the events: timeline, plots, window and files. */
function Runs({ model, selection, select }: RunsProps) {
  return (
    <>
      {model.exploration !== null && (
        <Section id="window" title="Vulnerability window">
          <Window model={model} exploration={model.exploration} selection={selection} select={select} />
        </Section>
      )}
      {model.runs.length > 0 && (
        <Section id="timeline" title="Timeline">
          <RunChoice model={model} selection={selection} select={select} />
        </Section>
      )}
      {model.runs.some(({ fileCuts }) => fileCuts.length > 0) && (
        <Section id="files" title="Files at each cut">
          <Files model={model} select={select} />
        </Section>
      )}
    </>
  );
}

/** The timeline and the plots of one run, with a choice if there are several. */
function RunChoice({ model, selection, select }: RunsProps) {
  const [chosen, setChosen] = useState(0);
  const wanted = selection === null || selection.kind === 'state' ? chosen : selection.run;
  const view = useMemo(() => {
    const run = model.runs[wanted];
    if (run === undefined) throw new Error(`run ${wanted} is missing`);
    return viewRun(run);
  }, [model, wanted]);
  const own = selection !== null && selection.kind !== 'state' && selection.run === wanted ? selection : null;
  return (
    <>
      {model.runs.length > 1 && (
        <fieldset class="choice">
          <legend>Run</legend>
          {model.runs.map(({ name }, index) => (
            <label key={name}>
              <input
                type="radio"
                name="run"
                checked={index === wanted}
                onChange={() => {
                  setChosen(index);
                  if (selection !== null) select({ kind: 'injection', run: index, index: 0 });
                }}
              />{' '}
              {name || `run ${index + 1}`}
            </label>
          ))}
        </fieldset>
      )}
      <Timeline key={wanted} model={model} runIndex={wanted} view={view} selection={own} select={select} />
      <Story model={model} runIndex={wanted} view={view} selection={own} select={select} />
      <Charts key={`charts-${wanted}`} model={model} view={view} />
      <Losses view={view} runIndex={wanted} select={select} />
    </>
  );
}

function Contents({ model }: { model: ReportModel }) {
  const entries = [
    { id: 'verdict', title: 'Verdict', shown: true },
    { id: 'matrix', title: 'Requirements and faults', shown: model.matrix.length > 0 },
    { id: 'window', title: 'Vulnerability window', shown: model.exploration !== null },
    { id: 'timeline', title: 'Timeline', shown: model.runs.length > 0 },
    { id: 'files', title: 'Files', shown: model.runs.some(({ fileCuts }) => fileCuts.length > 0) },
  ];
  return (
    <nav aria-label="Sections">
      {entries
        .filter(({ shown }) => shown)
        .map(({ id, title }) => (
          <a key={id} href={`#${id}`}>
            {title}
          </a>
        ))}
    </nav>
  );
}

/** Shows a section, and moves the focus to the part of it that says what was chosen. */
function goTo(section: string, part: string): void {
  document.getElementById(section)?.scrollIntoView({ block: 'start' });
  document.getElementById(part)?.focus({ preventScroll: true });
}
