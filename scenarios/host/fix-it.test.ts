import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { REQUIREMENT_IDS, REQUIREMENTS } from '../../conformance/requirements/requirements.js';
import { changeIn, fixItPage, sectionOf, testedCauses } from '../fixtures/fix-it-page.js';
import { FIX_IT_PAGE, fixItLines, fixItLink, withFixIt } from './fix-it.js';
import { packageRoot } from './version.js';

const page = fixItPage();

/** Returns a section with its subsections. */
function wholeSectionOf(id: string): string {
  return page.split(new RegExp(`^## ${id}$`, 'm'))[1]?.split(/^## /m)[0] ?? '';
}

t.test('each requirement has an anchor, its title, and a cause with code', async (t) => {
  for (const id of REQUIREMENT_IDS) {
    const section = wholeSectionOf(id);
    const title = REQUIREMENTS.find((one) => one.id === id)?.title ?? '';
    t.match(section, new RegExp(`^\\s*\\*${title}\\.\\*`, 'i'), `${id}: ${title}`);
    t.match(section, /```\w+\n[\s\S]+?\n *```/, `${id} has a block of code`);
    t.ok(page.includes(`](#${id.toLowerCase()})`), `${id} is in the list at the top`);
  }
});

t.test('each tested cause is below a requirement, and has a change', async (t) => {
  const causes = testedCauses(page);
  t.ok(causes.length >= 8);
  for (const { title, requirement } of causes) {
    t.ok(
      REQUIREMENT_IDS.some((id) => wholeSectionOf(id).includes(`### ${title}\n`)),
      title,
    );
    t.ok(REQUIREMENT_IDS.includes(requirement as (typeof REQUIREMENT_IDS)[number]), requirement);
    const { right, wrong } = changeIn(sectionOf(page, title));
    t.not(right, wrong, title);
  }
});

t.test(
  'the link is a relative path in a checkout and below node_modules, and absolute elsewhere',
  async (t) => {
    t.equal(fixItLink('PP-1', '/work/plugpull', '/work/plugpull'), 'conformance/FIX-IT.md#pp-1');
    t.equal(
      fixItLink('PP-12', '/home/me/queue', '/home/me/queue/node_modules/plugpull'),
      'node_modules/plugpull/conformance/FIX-IT.md#pp-12',
    );
    t.equal(fixItLink('PP-2', '/home/me', '/opt/plugpull'), '/opt/plugpull/conformance/FIX-IT.md#pp-2');
    t.ok(existsSync(join(packageRoot(), FIX_IT_PAGE)));
  },
);

t.test('only requirements that failed have a link', async (t) => {
  const requirements = [
    { id: 'PP-1', verdict: 'pass' },
    { id: 'PP-2', verdict: 'fail' },
    { id: 'PP-3', verdict: 'not-measured' },
  ] as const;
  t.same(
    withFixIt(requirements).map((one) => one.fixIt?.replace(/.*#/, '#')),
    [undefined, '#pp-2', undefined],
  );
  const lines = fixItLines(requirements);
  t.equal(lines.length, 1);
  t.match(lines[0], /^Fix it: .*conformance\/FIX-IT\.md#pp-2$/);
});

t.test('a link is absolute when the current directory was removed', async (t) => {
  const module = join(packageRoot(), 'dist/scenarios/host/fix-it.js');
  const program = `
    const { mkdtempSync, rmdirSync } = await import('node:fs');
    const { fixItLink } = await import(${JSON.stringify(module)});
    const dir = mkdtempSync('/tmp/plugpull-gone-');
    process.chdir(dir);
    rmdirSync(dir);
    console.log(fixItLink('PP-1'));`;
  const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
    encoding: 'utf8',
  });
  t.equal(stdout.trim(), `${join(packageRoot(), FIX_IT_PAGE)}#pp-1`, stderr);
});
