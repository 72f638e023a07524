import { join } from 'node:path';
import { KitError } from '../../../conformance/errors.js';
import type { EvidenceReporter } from './reporter.js';

// A file that the user named is replaced, as by every reporter. The parts that read evidence are imported when they are needed: most runs write no such report.

/** Reporter that writes the whole run as one HTML file. */
export const html: EvidenceReporter = {
  name: 'html',
  stream: 'stderr',
  supportsFile: true,
  async write(evidence, named) {
    const file = named ?? join(evidence, 'report.html');
    const { buildReport } = await import('../html/build.js');
    const { reportHtml, writeReportFile } = await import('../html/write-html.js');
    writeReportFile(file, reportHtml(buildReport(await sourceOf(evidence))), named !== undefined);
    return file;
  },
};

/** Reporter that writes the events of the run as a trace for Perfetto. */
export const perfetto: EvidenceReporter = {
  name: 'perfetto',
  stream: 'stderr',
  supportsFile: true,
  async write(evidence, named) {
    const file = named ?? join(evidence, 'trace.json');
    const { writeReportFile } = await import('../html/write-html.js');
    const { isTrace, traceText } = await import('../html/write-trace.js');
    writeReportFile(file, traceText(await sourceOf(evidence)), named !== undefined, isTrace);
    return file;
  },
};

async function sourceOf(evidence: string) {
  const { collect } = await import('../html/collect.js');
  const { source } = await collect(evidence, () => {
    throw new KitError('kit-failed', `${evidence}: expected a directory of evidence`);
  });
  return source;
}
