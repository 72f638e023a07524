import { useState } from 'preact/hooks';
import { fromDeltas } from '../../html/columns.js';
import type { FileAtCut, ReportModel, RunModel } from '../../html/model.js';
import type { Mark } from './draw-timeline.js';
import { FLAG, findMessage, hasFlag, type RunView, type Selection } from './run-view.js';
import { formatCount, formatTick } from './text.js';
import { describeInjection } from './tracks.js';

interface Props {
  model: ReportModel;
  runIndex: number;
  view: RunView;
  selection: Selection | null;
  select: (selection: Selection) => void;
}

interface StoryEvent {
  tick: number;
  /** A word or two, for the mark on the timeline; empty for what has no time of its own, such as the final judgement. */
  label: string;
  text: string;
  tone?: 'fail' | 'pass';
}

const OUTCOMES = ['confirmed', 'rejected', 'no definite answer', 'no answer'] as const;
/** Upper bound of the ids that an injection lists. */
const MAX_IDS = 12;

/** The story of the chosen message or injection, and a field to look for a message. */
export function Story({ model, runIndex, view, selection, select }: Props) {
  return (
    <div id="story" tabIndex={-1}>
      {selection?.kind === 'message' && <MessageStory model={model} view={view} index={selection.index} />}
      {selection?.kind === 'injection' && (
        <InjectionStory
          model={model}
          runIndex={runIndex}
          view={view}
          index={selection.index}
          select={select}
        />
      )}
      <Search model={model} select={select} />
    </div>
  );
}

/** Returns the marks of a choice on the timeline. */
export function marksOf(model: ReportModel, view: RunView, selection: Selection | null): Mark[] {
  if (selection?.kind === 'message')
    return messageEvents(model, view, selection.index).flatMap(({ tick, label }) =>
      label === '' ? [] : [{ tick, label }],
    );
  if (selection?.kind !== 'injection') return [];
  const injection = view.run.injections[selection.index];
  if (injection === undefined) return [];
  const name = `${model.faults[injection.fault]?.name} ${injection.number}`;
  const ready = injection.recoveredTick;
  return [
    { tick: injection.tick, label: name },
    ...(ready < 0 ? [] : [{ tick: ready, label: 'ready again' }]),
  ];
}

function MessageStory({ model, view, index }: { model: ReportModel; view: RunView; index: number }) {
  const { messages } = view.run;
  const files = filesOf(view.run, index);
  return (
    <>
      <h3>
        Message {messages.id[index]}{' '}
        <small>
          producer {messages.producer[index]}, round {messages.round[index]},{' '}
          {formatCount(messages.sizeBytes[index] ?? 0)} bytes
        </small>
      </h3>
      <ol class="story">
        {messageEvents(model, view, index).map(({ tick, label, text, tone }) => (
          <li key={`${tick} ${text}`} class={tone}>
            <time>{label === '' ? 'in the end' : formatTick(tick)}</time> {text}
          </li>
        ))}
      </ol>
      {files.map(({ file, sentence, habit }) => (
        <p key={file} class="cause-sentence">
          It was in <code>{file}</code>: {[sentence, habit].filter((part) => part !== '').join('; ')}
        </p>
      ))}
    </>
  );
}

function messageEvents(model: ReportModel, { run, submitted }: RunView, index: number): StoryEvent[] {
  const { messages } = run;
  const start = submitted[index] ?? 0;
  const events: StoryEvent[] = [{ tick: start, label: 'submitted', text: 'submitted' }];
  const add = (ticks: number | undefined, label: string, text: string, tone?: StoryEvent['tone']) => {
    if (ticks !== undefined && ticks >= 0)
      events.push({ tick: start + ticks, label, text, ...(tone === undefined ? {} : { tone }) });
  };
  const outcome = messages.outcome[index] ?? 3;
  const answer = run.strings[messages.answer[index] ?? -1] ?? '';
  const word = OUTCOMES[outcome];
  add(
    messages.answeredTicks[index],
    word,
    answer === '' ? word : `${word}: ${answer}`,
    outcome === 0 ? 'pass' : undefined,
  );
  add(messages.deliveredTicks[index], 'delivered', 'delivered');
  const later = fromDeltas(messages.later.message);
  for (let at = later.indexOf(index); at >= 0; at = later.indexOf(index, at + 1))
    add(messages.later.ticks[at], 'again', 'delivered again');
  const refused = fromDeltas(messages.refused.message);
  for (let at = refused.indexOf(index); at >= 0; at = refused.indexOf(index, at + 1))
    add(
      messages.refused.ticks[at],
      'refused',
      `refused: ${run.strings[messages.refused.why[at] ?? -1] ?? ''}`,
    );
  add(messages.consumedTicks[index], 'consumed', 'consumed');
  const injection = run.injections[messages.lostBy[index] ?? -1];
  if (injection !== undefined) {
    const name = `${model.faults[injection.fault]?.name} ${injection.number}`;
    events.push({ tick: injection.tick, label: name, text: `${name}: ${injection.detail}`, tone: 'fail' });
  }
  events.sort((one, other) => one.tick - other.tick);
  if (hasFlag(run, index, FLAG.lost))
    events.push({ tick: run.endTick, label: '', text: 'lost: confirmed and never delivered', tone: 'fail' });
  if (hasFlag(run, index, FLAG.changed))
    events.push({ tick: run.endTick, label: '', text: 'it was delivered changed', tone: 'fail' });
  if (hasFlag(run, index, FLAG.duplicate))
    events.push({
      tick: run.endTick,
      label: '',
      text: 'it was delivered again after it was consumed',
      tone: 'fail',
    });
  return events;
}

/** Returns the files that held a message at the cut that took it. */
function filesOf(run: RunModel, index: number): FileAtCut[] {
  const cut = run.fileCuts.find(({ injection }) => injection === run.messages.lostBy[index]);
  const id = run.messages.id[index] ?? '';
  const holders = cut?.files.filter(({ examples }) => examples.includes(id)) ?? [];
  return holders.length > 0 ? holders : (cut?.files.filter(({ messages }) => messages > 0).slice(0, 1) ?? []);
}

function InjectionStory({
  model,
  runIndex,
  view,
  index,
  select,
}: Omit<Props, 'selection'> & { index: number }) {
  const injection = view.run.injections[index];
  if (injection === undefined) return null;
  const [title, ...lines] = describeInjection(model, injection);
  const taken: number[] = [];
  for (const [message, by] of view.run.messages.lostBy.entries()) if (by === index) taken.push(message);
  return (
    <>
      <h3>{title}</h3>
      <ul>
        {lines.map((line) => (
          <li key={line}>{line}</li>
        ))}
        {injection.services.length > 0 && <li>services: {injection.services.join(', ')}</li>}
      </ul>
      {taken.length > 0 && (
        <p>
          It took {taken.length === 1 ? 'message' : `${formatCount(taken.length)} messages, such as`}{' '}
          {taken.slice(0, MAX_IDS).map((message) => (
            <button
              key={message}
              type="button"
              class="link"
              onClick={() => select({ kind: 'message', run: runIndex, index: message })}
            >
              {view.run.messages.id[message]}
            </button>
          ))}
        </p>
      )}
    </>
  );
}

function Search({ model, select }: Pick<Props, 'model' | 'select'>) {
  const [answer, setAnswer] = useState('');
  const [id, setId] = useState('');
  const search = (event: Event) => {
    event.preventDefault();
    const found = findMessage(model, id.trim());
    setAnswer(found === undefined ? `no message has the id ${id.trim()}` : '');
    if (found !== undefined) select(found);
  };
  return (
    <form class="search" onSubmit={search}>
      <label>
        Message id <input value={id} onInput={({ currentTarget }) => setId(currentTarget.value)} />
      </label>{' '}
      <button type="submit">Show its story</button> <span role="status">{answer}</span>
    </form>
  );
}
