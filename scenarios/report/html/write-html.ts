import {
  closeSync,
  existsSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { KitError, messageOf } from '../../../conformance/errors.js';
import { openRegularFile } from '../../../conformance/read-file.js';
import { makeDirectories } from '../../host/directories.js';
import type { ReportModel } from './model.js';

/** Place of the data in the page of the viewer. */
const DATA_MARK = '<!--plugpull-data-->';
/** Comment by which the kit knows a report of its own again, before it replaces the file. */
const REPORT_MARK = '<!--plugpull-report-->';
/** Number of bytes at the beginning of a file in which the mark must be. */
const HEAD_BYTES = 256;
const DOCTYPE = '<!doctype html>';

const VIEWER = new URL('../viewer/viewer.html', import.meta.url);

/**
 * Returns the whole HTML file. The data are packed by gzip and written as base64. This alphabet has no `<` and no
 * quote, so no text of a target can end the element or become markup.
 * @throws KitError kit-failed when the viewer was not built.
 */
export function reportHtml(model: ReportModel, page: string = viewerPage()): string {
  const at = page.indexOf(DATA_MARK);
  if (at < 0) throw new KitError('kit-failed', `the viewer page has no ${DATA_MARK}: build the kit again`);
  const data = gzipSync(JSON.stringify(model), { level: 9 }).toString('base64');
  const body = page.replace(/^\s*<!doctype html>/i, '');
  const start = body.indexOf(DATA_MARK);
  return [
    `${DOCTYPE}${REPORT_MARK}${body.slice(0, start)}`,
    `<script type="application/octet-stream" id="plugpull-data">${data}</script>`,
    body.slice(start + DATA_MARK.length),
  ].join('');
}

function viewerPage(): string {
  try {
    return readFileSync(VIEWER, 'utf8');
  } catch (error) {
    throw new KitError(
      'kit-failed',
      `${fileURLToPath(VIEWER)}: the viewer of reports is not built: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

/**
 * Writes a file of a report, in one step.
 * @param replaces returns whether an existing file may be replaced, given its beginning.
 * @throws KitError bad-usage (exit code 2) when another file is there, or when it cannot be written.
 */
export function writeReportFile(file: string, text: string, force: boolean, replaces = isReport): void {
  // A rename would put a file in place of a device.
  if (existsSync(file) && !statSync(file).isFile())
    throw new KitError('bad-usage', `${file}: expected a file, found a directory, a pipe or a device`);
  if (existsSync(file) && !force && !replaces(headOf(file)))
    throw new KitError(
      'bad-usage',
      `${file}: expected a report of plugpull, found another file; use --force to replace it, or another --out`,
    );
  const unfinished = `${file}.${process.pid}.part`;
  try {
    makeDirectories(dirname(file));
    writeFileSync(unfinished, text, { flag: 'wx' });
    renameSync(unfinished, file);
  } catch (error) {
    rmSync(unfinished, { force: true });
    throw new KitError('bad-usage', `${file}: expected a file that can be written: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function isReport(head: string): boolean {
  return head.includes(REPORT_MARK);
}

function headOf(file: string): string {
  let fd: number | undefined;
  try {
    fd = openRegularFile(file);
    const bytes = Buffer.alloc(HEAD_BYTES);
    return bytes.subarray(0, readSync(fd, bytes, 0, HEAD_BYTES, 0)).toString('latin1');
  } catch {
    return '';
  } finally {
    if (fd !== undefined) closeSync(fd);
  }
}
