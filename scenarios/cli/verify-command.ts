import { verifyCertificate } from '../../conformance/certificate/verify.js';
import { EXIT_CODES } from '../../conformance/exit-codes.js';
import { log, printJson } from '../host/console.js';
import { kitVersion } from '../host/version.js';
import { certificateSummary } from '../report/certificate-report.js';
import { styleFor } from '../report/style.js';

/**
 * Verifies a certificate. Returns exit code 0 when its evidence leads to the same certificate, otherwise 1.
 */
export function verifyCommand(file: string, flags: { json?: boolean }): number {
  const { ok, problems, certified } = verifyCertificate(file, kitVersion());
  const style = styleFor(process.stderr);
  if (flags.json) {
    const { target = null, verdict = null, granted = [] } = certified ?? {};
    printJson({ ok, problems, target, verdict, granted });
  }
  for (const problem of problems) log(problem);
  const summary = certified === undefined ? '' : `: ${certificateSummary(certified)}`;
  const outcome = ok ? `${style.good('verified')}${summary}` : `${style.bad('not verified')}: ${file}`;
  log(outcome);
  return ok ? EXIT_CODES.pass : EXIT_CODES.violation;
}
