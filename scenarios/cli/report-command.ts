import { statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { KitError } from '../../conformance/errors.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { log, printJson } from '../host/console.js';
import { newRunId, Registry, stateDirectory } from '../host/registry.js';
import { createWorkspaceDir, removeWorkspaceDir } from '../replay/replay.js';
import { buildReport } from '../report/html/build.js';
import { collect } from '../report/html/collect.js';
import { reportHtml, writeReportFile } from '../report/html/write-html.js';
import { isTrace, traceText } from '../report/html/write-trace.js';

export interface ReportFlags {
  out?: string;
  trace?: string;
  force?: boolean;
  json?: boolean;
}

/** Name of the file when the user names none. */
export const REPORT_FILE = 'report.html';

/**
 * Writes the report of evidence as one HTML file, or as a trace, or both. It runs nothing of what it reads. Resolves to
 * exit code 0: the report of a failure is a success.
 */
export async function reportCommand(path: string, flags: ReportFlags): Promise<number> {
  let workspace: { registry: Registry; dir: string } | undefined;
  try {
    const { source, directory } = await collect(path, () => {
      // Only a bundle needs room: other evidence can be on a disk that is read-only.
      const registry = new Registry(newRunId(), stateDirectory());
      workspace = { registry, dir: createWorkspaceDir(registry, stateDirectory()) };
      return workspace.dir;
    });
    const written: { html?: string; trace?: string } = {};
    if (flags.trace !== undefined) {
      written.trace = fileOf(flags.trace, '--trace');
      writeReportFile(written.trace, traceText(source), flags.force === true, isTrace);
    }
    if (flags.trace === undefined || flags.out !== undefined) {
      written.html =
        flags.out === undefined ? join(directory ?? resolve('.'), REPORT_FILE) : fileOf(flags.out, '--out');
      writeReportFile(written.html, reportHtml(buildReport(source)), flags.force === true);
    }
    if (written.html !== undefined) log(`report: ${written.html}`);
    if (written.trace !== undefined)
      log(`trace: ${written.trace}; open it at ui.perfetto.dev or chrome://tracing`);
    if (flags.json === true) printJson(written);
    return EXIT_CODES.pass;
  } finally {
    if (workspace !== undefined) {
      removeWorkspaceDir(workspace.registry, workspace.dir);
      workspace.registry.close();
    }
  }
}

function fileOf(path: string, flag: string): string {
  const file = resolve(path);
  if (path === '' || statSync(file, { throwIfNoEntry: false })?.isDirectory() === true)
    throw new KitError(
      'bad-usage',
      `${flag} ${path}: expected a file, and it is ${path === '' ? 'empty' : 'a directory'}`,
    );
  return file;
}
