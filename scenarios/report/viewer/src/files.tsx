import type { FileAtCut, FileCut, ReportModel } from '../../html/model.js';
import type { Selection } from './run-view.js';
import { Scroll } from './scroll.js';
import { countOf, formatCount, formatTick } from './text.js';

interface Props {
  model: ReportModel;
  select: (selection: Selection) => void;
}

/** Upper bound of the cuts that are shown; the ones that took most messages come first. */
const MAX_CUTS = 30;
const STATES = { synced: '✓ synced', 'not-synced': '✗ not synced', unknown: '? not known' } as const;

/** View 6: what was synced and what was not, at each cut. */
export function Files({ model, select }: Props) {
  const cuts = model.runs.flatMap((run, runIndex) =>
    run.fileCuts.map((cut) => ({
      cut,
      runIndex,
      // No file shows the messages of an undone rename, so the fault may have taken more than its files tell.
      lost: Math.max(
        run.injections[cut.injection]?.lost ?? 0,
        cut.files.reduce((sum, file) => sum + file.messages, 0),
      ),
    })),
  );
  cuts.sort((one, other) => other.lost - one.lost);
  return (
    <>
      <p>
        A confirmed message is safe when the content of its file <em>and</em> the name of the file in its
        directory are synced. A file on which no confirmed message depends, such as an index, need not be
        synced. The cuts that took the most messages come first.
      </p>
      {cuts.slice(0, MAX_CUTS).map(({ cut, runIndex, lost }, index) => (
        <Cut
          key={`${runIndex} ${cut.injection}`}
          model={model}
          runIndex={runIndex}
          cut={cut}
          lost={lost}
          open={index === 0}
          select={select}
        />
      ))}
      {cuts.length > MAX_CUTS && <p>And {cuts.length - MAX_CUTS} more cuts.</p>}
    </>
  );
}

interface CutProps extends Props {
  runIndex: number;
  cut: FileCut;
  lost: number;
  open: boolean;
}

function Cut({ model, runIndex, cut, lost, open, select }: CutProps) {
  const injection = model.runs[runIndex]?.injections[cut.injection];
  if (injection === undefined) return null;
  const name = `${model.faults[injection.fault]?.name} ${injection.number}`;
  return (
    <details open={open}>
      <summary>
        {name} at {formatTick(injection.tick)}:{' '}
        {lost === 0 ? 'took no message' : `took ${countOf(lost, 'message')}`}
      </summary>
      <p>
        <button
          type="button"
          onClick={() => select({ kind: 'injection', run: runIndex, index: cut.injection })}
        >
          Show {name} in the timeline
        </button>
      </p>
      <Scroll label={`Files at ${name}, run ${runIndex + 1}`}>
        <table>
          <thead>
            <tr>
              <th scope="col">File</th>
              <th scope="col">Size</th>
              <th scope="col">Content</th>
              <th scope="col">Name</th>
              <th scope="col">Lost messages in it</th>
              <th scope="col">What it means</th>
            </tr>
          </thead>
          <tbody>
            {cut.files.map((file) => (
              <FileRow key={file.file} file={file} harmless={lost === 0} />
            ))}
          </tbody>
        </table>
      </Scroll>
      {cut.more > 0 && <p>And {countOf(cut.more, 'more file', 'more files')}.</p>}
    </details>
  );
}

/** @param harmless true if the cut took no message: then an unsynced file is not an error. */
function FileRow({ file, harmless }: { file: FileAtCut; harmless: boolean }) {
  const tone = (state: FileAtCut['name']) =>
    `state ${harmless && state === 'not-synced' ? 'unknown' : state}`;
  return (
    <tr>
      <th scope="row">
        <code>{file.file}</code>
        {file.nameAfter !== null && (
          <small>
            after the cut: <code>{file.nameAfter}</code>
          </small>
        )}
      </th>
      <td>
        {formatCount(file.sizeBytes)}
        <small>
          {file.sizeAfterBytes === null ? 'then gone' : `then ${formatCount(file.sizeAfterBytes)}`}
        </small>
      </td>
      <td class={tone(file.content)}>
        <span>{STATES[file.content]}</span>
        {file.cacheBytes > 0 && <small>{formatCount(file.cacheBytes)} bytes in the page cache</small>}
        {file.driveBytes > 0 && <small>{formatCount(file.driveBytes)} bytes in the drive</small>}
      </td>
      <td class={tone(file.name)}>
        <span>{STATES[file.name]}</span>
      </td>
      <td>{file.messages === 0 ? '–' : formatCount(file.messages)}</td>
      <td>
        {file.sentence}
        {file.habit !== '' && <small>{file.habit}</small>}
      </td>
    </tr>
  );
}
