import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import t from 'tap';
import { startPages, unfold, withoutBrowser } from './fixtures/browser.js';
import { sampleModel, samplePage } from './fixtures/sample-model.js';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

t.test('reports are accessible', { skip: withoutBrowser }, async (t) => {
  const pages = await startPages();
  t.teardown(() => pages.close());
  const longName = `/${'very-long-name-without-a-space'.repeat(12)}`;

  for (const colours of ['light', 'dark'] as const)
    for (const width of [1200, 400])
      t.test(`nothing is inaccessible: ${colours}, ${width} px`, async (t) => {
        const { page, problems } = await pages.open(samplePage(sampleModel({ messages: 1000 })), {
          colours,
          width,
        });
        await page.locator('#files table').waitFor();
        await unfold(page);
        await page.locator('.matrix button').first().click();
        await page.locator('#story h3').waitFor();
        await page.evaluate(AXE);
        const result = (await page.evaluate(
          `axe.run().then(({ violations, passes }) => ({
            passed: passes.length,
            violations: violations.map(({ id, nodes }) => id + ': ' + nodes.map(({ html }) => html.slice(0, 120)).join(' | ')),
          }))`,
        )) as { passed: number; violations: string[] };
        t.strictSame(result.violations, []);
        t.ok(result.passed > 10, 'the checks ran');
        t.strictSame(problems, []);
      });

  t.test('a page of 400 px does not scroll sideways, whatever the names are', async (t) => {
    for (const foreign of ['plain text', longName]) {
      const { page } = await pages.open(samplePage(sampleModel({ messages: 1000, foreign })), { width: 400 });
      await page.locator('#files table').waitFor();
      await unfold(page);
      await page.locator('.matrix button').first().click();
      const widths = await page.evaluate('[document.documentElement.scrollWidth, innerWidth]');
      t.strictSame(widths, [400, 400]);
    }
  });

  t.test('dark colours follow the system, on the plots as well', async (t) => {
    const background = 'getComputedStyle(document.body).backgroundColor';
    const html = samplePage(sampleModel({ messages: 1000 }));
    const { page } = await pages.open(html, { colours: 'dark' });
    await page.locator('#timeline-canvas').waitFor();
    t.equal(await page.evaluate(background), 'rgb(20, 23, 27)');
    const picture = "document.getElementById('timeline-canvas').toDataURL()";
    const dark = await page.evaluate(picture);
    await page.emulateMedia({ colorScheme: 'light' });
    t.equal(await page.evaluate(background), 'rgb(255, 255, 255)');
    await page.waitForFunction(`${picture} !== ${JSON.stringify(dark)}`);
  });
});
