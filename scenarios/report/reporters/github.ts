import { fixItLink } from '../../host/fix-it.js';
import { visible } from '../../host/visible.js';
import type { Outcome } from '../outcome.js';
import type { TextReporter } from './reporter.js';

const VERDICT_ICONS = { pass: '✅', fail: '❌', 'not-measured': '⚠️' } as const;

/**
 * Reporter for a job of GitHub Actions. It writes an annotation for each failed requirement, and one for a
 * run that was not measured. It adds a table of all requirements to the summary of the job when
 * $GITHUB_STEP_SUMMARY is set.
 */
export const github: TextReporter = {
  name: 'github',
  stream: 'stdout',
  supportsFile: false,
  async render(outcome) {
    // Load the package here, because no other reporter needs it. It writes its commands to stdout itself.
    const core = await import('@actions/core');
    const target = visible(outcome.target);
    const location = outcome.file === undefined ? {} : { file: visible(outcome.file) };
    for (const { id, title, verdict, why, violations } of outcome.requirements) {
      if (verdict !== 'fail') continue;
      core.error([why, ...violations, `Fix it: ${fixItLink(id)}`].map(visible).join('\n'), {
        title: visible(`${target}: ${id} ${title}`),
        ...location,
      });
    }
    if (outcome.verdict === 'not-measured')
      core.error(visible(outcome.why), { title: `${target}: not measured`, ...location });
    if (process.env.GITHUB_STEP_SUMMARY) await summarise(core, outcome);
    return '';
  },
};

async function summarise(core: typeof import('@actions/core'), outcome: Outcome): Promise<void> {
  const { command, target, verdict, why, requirements, properties } = outcome;
  const head = ['', 'requirement', 'level', 'why'].map((data) => ({ data, header: true }));
  const rows = requirements.map((one) => {
    const cells = [`${one.id} ${one.title}`, one.level, one.why].map(escapeHtml);
    return [`${VERDICT_ICONS[one.verdict]} ${one.verdict}`, ...cells];
  });
  await core.summary
    .emptyBuffer()
    .addHeading(`${VERDICT_ICONS[verdict]} plugpull ${command}: ${escapeHtml(target)}`, 3)
    .addRaw(escapeHtml(`${verdict}: ${why}`), true)
    .addTable([head, ...rows])
    .addList(
      Object.entries(properties).map(
        ([name, value]) => `${escapeHtml(name)}: <code>${escapeHtml(value)}</code>`,
      ),
    )
    .write();
}

/**
 * Escapes foreign text for the summary, which is Markdown with HTML in it: what either of them acts on becomes a
 * character reference, and a line stays one line.
 */
function escapeHtml(foreign: string): string {
  return visible(foreign).replace(
    /[^\p{L}\p{N}\p{M} .,:;/=()%+-]/gu,
    (character) => `&#${character.codePointAt(0)};`,
  );
}
