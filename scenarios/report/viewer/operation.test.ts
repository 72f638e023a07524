import type { Page } from 'playwright-core';
import t from 'tap';
import { startPages, withoutBrowser } from './fixtures/browser.js';
import { sampleModel, samplePage } from './fixtures/sample-model.js';

t.test('reports can be operated', { skip: withoutBrowser }, async (t) => {
  const pages = await startPages();
  t.teardown(() => pages.close());

  t.test('the replay line is copied', async (t) => {
    const { page } = await pages.open(samplePage(sampleModel({ messages: 500 })));
    await page.getByRole('button', { name: 'Copy command 1' }).click();
    await page.getByText('copied').waitFor();
    await page.getByLabel('Message id').focus();
    await page.keyboard.press('Control+V');
    t.equal(await page.getByLabel('Message id').inputValue(), 'plugpull replay plain text');
  });

  t.test('a cell of the matrix leads to the message and its story', async (t) => {
    const { page } = await pages.open(samplePage(sampleModel({ messages: 1000 })));
    await page.locator('.matrix button').first().click();
    await page.locator('#story h3').waitFor();
    const story = await page.locator('#story').innerText();
    t.match(story, /Message 1-1-493/);
    t.match(story, /submitted[\s\S]*confirmed: 201[\s\S]*power-cut 1: plain text[\s\S]*lost/);
    t.match(story, /It was in plain text/);
  });

  t.test('the timeline zooms and opens a story with the pointer', async (t) => {
    const { page } = await pages.open(samplePage(sampleModel({ messages: 1000 })));
    const canvas = page.locator('#timeline-canvas');
    await canvas.waitFor();
    const box = await canvas.boundingBox();
    if (box === null) throw new Error('the timeline has no size');
    const before = await picture(page);
    // The first power cut is at 1 s of 2.1 s; faults are the first row.
    const cut = { x: (box.width * 10_000) / 21_000, y: 26 };
    await canvas.hover({ position: cut });
    t.match(await page.locator('.tooltip').innerText(), /power-cut 1 at 1\.000 s: hit/);
    await canvas.click({ position: cut });
    await page.locator('#story h3').waitFor();
    t.match(
      await page.locator('#story').innerText(),
      /power-cut 1 at 1\.000 s: hit[\s\S]*It took 7 messages/,
    );
    const zoomed = await picture(page);
    t.not(zoomed, before, 'the choice is shown larger');
    await canvas.hover();
    await page.mouse.wheel(0, -300);
    await page.waitForFunction(
      `document.getElementById('timeline-canvas').toDataURL() !== ${JSON.stringify(zoomed)}`,
    );
    await page.getByRole('button', { name: 'Whole run' }).click();
    await page.getByRole('button', { name: '1-1-493', exact: true }).last().click();
    t.match(await page.locator('#story h3').innerText(), /Message 1-1-493/);
  });

  t.test('the timeline works by keyboard alone', async (t) => {
    const { page } = await pages.open(samplePage(sampleModel({ messages: 1000 })));
    await page.locator('#timeline-canvas').waitFor();
    for (let stops = 0; (await focused(page)) !== 'timeline-canvas'; stops++) {
      if (stops > 60) throw new Error('Tab does not reach the timeline');
      await page.keyboard.press('Tab');
    }
    await page.keyboard.press('ArrowRight');
    t.match(await page.locator('#timeline .cursor').innerText(), /power-cut \d at/);
    const before = await picture(page);
    await page.keyboard.press('+');
    const zoomed = await picture(page);
    t.not(zoomed, before, 'plus zooms');
    await page.keyboard.press('Shift+ArrowRight');
    t.not(await picture(page), zoomed, 'Shift and an arrow move');
    await page.keyboard.press('0');
    for (const _ of 'down') await page.keyboard.press('ArrowDown');
    t.match(await page.locator('#timeline .cursor').innerText(), /message 1-\d-\d+; lost at/);
    await page.keyboard.press('Enter');
    await page.locator('#story h3').waitFor();
    t.match(await page.locator('#story h3').innerText(), /Message 1-/);
  });

  t.test(
    'a choice moves the focus to its story, and a choice in the timeline does not move the page',
    async (t) => {
      const { page } = await pages.open(samplePage(sampleModel({ messages: 1000 })));
      await page.locator('#timeline-canvas').waitFor();
      await page.locator('.matrix button').first().click();
      await page.waitForFunction("document.activeElement.id === 'story'");
      await page.locator('#timeline-canvas').focus();
      const top = await page.evaluate('scrollY');
      await page.keyboard.press('ArrowRight');
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { name: /power-cut \d at/ }).waitFor();
      t.equal(await focused(page), 'timeline-canvas');
      t.equal(await page.evaluate('scrollY'), top);
    },
  );

  t.test('each run of a certificate has its own timeline', async (t) => {
    const good = sampleModel({ messages: 1000 });
    const [run] = good.runs;
    const runs = ['process', 'power'].map((name) => ({
      ...run,
      name,
      lanes: name === 'power' ? [] : run?.lanes,
    }));
    const { page, problems } = await pages.open(samplePage({ ...good, runs, exploration: null }));
    await page.getByRole('radio', { name: 'power' }).check();
    await page.locator('#timeline-canvas[aria-label^="Timeline with 4 rows"]').waitFor();
    await page.getByRole('radio', { name: 'process' }).check();
    await page.locator('#timeline-canvas[aria-label^="Timeline with 5 rows"]').waitFor();
    await page.locator('.matrix button').first().click();
    await page.getByRole('heading', { name: /Message 1-1-493/ }).waitFor();
    await page.getByRole('radio', { name: 'power' }).check();
    await page.locator('#timeline-canvas[aria-label^="Timeline with 4 rows"]').waitFor();
    t.strictSame(problems, []);
  });

  t.test('the vulnerability window shows a cut, its states and the command for one', async (t) => {
    const { page } = await pages.open(samplePage(sampleModel({ messages: 1000 })));
    const canvas = page.locator('#window-canvas');
    await canvas.focus();
    for (const _ of 'steps') await page.keyboard.press('ArrowRight');
    t.match(await page.locator('#window').innerText(), /Cut after \d+ requests: \d of 4 states fail/);
    await page.locator('#window summary').click();
    await page.locator('#window table button').first().click();
    const state = await page.locator('#state').innerText();
    t.match(state, /State 24:-22/);
    t.match(state, /plugpull replay plain text --state 24:-22/);
    t.match(await page.locator('#window').innerText(), /Cut after 24 requests: 3 of 4 states fail/);
    const box = await canvas.boundingBox();
    if (box === null) throw new Error('the window has no size');
    await page.getByRole('button', { name: 'Whole log' }).click();
    // The log is shown from 19 to 101.
    const at = (position: number) => (box.width * (position - 19)) / 82;
    await canvas.click({ position: { x: at(35), y: 100 } });
    t.match(await page.locator('#window').innerText(), /Cut after 35 requests: 3 of 4 states fail/);
    t.equal(await page.locator('#state').count(), 0, 'no state of another cut is shown');
    await canvas.hover({ position: { x: at(34), y: 176 } });
    t.match(await page.locator('.tooltip').innerText(), 'message 1-1-1 confirmed after 34 requests');
  });
});

/** Returns what the timeline shows, as text that can be compared. */
async function picture(page: Page): Promise<string> {
  return String(await page.evaluate("document.getElementById('timeline-canvas').toDataURL()"));
}

async function focused(page: Page): Promise<string> {
  return String(await page.evaluate('document.activeElement.id'));
}
