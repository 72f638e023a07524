import { fixItLink } from '../../host/fix-it.js';
import { visible } from '../../host/visible.js';
import { notMeasuredTestName, type TextReporter } from './reporter.js';

/**
 * Reporter for JUnit's XML, which CI systems read: one test case per requirement. A requirement not
 * measured is skipped.
 */
export const junit: TextReporter = {
  name: 'junit',
  stream: 'stdout',
  supportsFile: true,
  async render(outcome) {
    const { create } = await import('xmlbuilder2');
    const { command, requirements, tookMs, properties } = outcome;
    const [target, why] = [visible(outcome.target), visible(outcome.why)];
    const extraTestName = notMeasuredTestName(outcome);
    const count = (verdict: string) => requirements.filter((one) => one.verdict === verdict).length;
    const totals = {
      tests: requirements.length + (extraTestName === undefined ? 0 : 1),
      failures: count('fail'),
      errors: extraTestName === undefined ? 0 : 1,
      skipped: count('not-measured'),
      time: (tookMs / 1000).toFixed(3),
    };
    const root = create({ version: '1.0', encoding: 'UTF-8' });
    const suite = root
      .ele('testsuites', { name: `plugpull ${command}`, ...totals })
      .ele('testsuite', { name: target, ...totals });
    const facts = suite.ele('properties');
    for (const [name, value] of Object.entries(properties))
      facts.ele('property', { name: visible(name), value: visible(value) });
    for (const { id, level, title, verdict, why: reason, violations } of requirements) {
      const one = suite.ele('testcase', {
        name: visible(`${id} ${title}`),
        classname: visible(`${target}.${level}`),
        time: '0',
      });
      if (verdict === 'fail')
        one
          .ele('failure', { message: visible(reason), type: visible(id) })
          .txt([...violations, `Fix it: ${fixItLink(id)}`].map(visible).join('\n'));
      if (verdict === 'not-measured') one.ele('skipped', { message: visible(`not measured: ${reason}`) });
    }
    if (extraTestName !== undefined)
      suite
        .ele('testcase', { name: extraTestName, classname: target, time: '0' })
        .ele('error', { message: why, type: 'not-measured' });
    return `${root.end({ prettyPrint: true })}\n`;
  },
};
