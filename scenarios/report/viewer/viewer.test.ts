import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { type Pages, startPages, unfold, withoutBrowser } from './fixtures/browser.js';
import { pageWith, sampleModel, samplePage } from './fixtures/sample-model.js';

/** Texts that a target or a stranger could put wherever the report shows text. */
const HOSTILE = [
  '<img src=x onerror="globalThis.pwned=1">',
  '</script><script>globalThis.pwned=1</script>',
  '<!--plugpull-data-->$&$`',
  'javascript:globalThis.pwned=1',
  '&lt;b&gt;&#x3c;b',
];

t.test('viewer of reports', { skip: withoutBrowser }, async (t) => {
  const pages: Pages = await startPages();
  t.teardown(() => pages.close());

  t.test('a report opens from the disk, shows its verdict first, and asks for nothing else', async (t) => {
    const { page, problems, requests } = await pages.open(samplePage(sampleModel({ messages: 2000 })));
    await page.locator('#files table').waitFor();
    const text = await page.locator('main').innerText();
    t.ok(text.indexOf('28 of 2000 confirmed messages were lost') < text.indexOf('Requirements and faults'));
    t.match(text, /Call fsync before the answer\./);
    t.match(text, 'node_modules/plugpull/conformance/FIX-IT.md#pp-12', 'the path is that of the model');
    t.match(text, 'install libfaketime', 'it says how to get what was not measured');
    t.match(await page.title(), /^fail: queue plain text/);
    t.equal(await page.locator('#timeline-canvas').count(), 1);
    t.equal(await page.locator('.uplot canvas').count(), 2);
    t.strictSame(problems, []);
    t.equal(requests.length, 1, 'the file itself is the only request');
  });

  t.test('everything is drawn although no animation frame ever comes', async (t) => {
    const html = samplePage(sampleModel({ messages: 500 }));
    const { page, problems } = await pages.open(html, { withFrames: false });
    await page.locator('#files table').waitFor({ state: 'attached' });
    const drawn = `(() => {
      const canvas = document.getElementById('timeline-canvas');
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      return data.some((value) => value > 0);
    })()`;
    await page.waitForFunction(drawn, undefined, { polling: 50 });
    t.strictSame(problems, []);
  });

  t.test('a history of 100,000 events is shown whole', async (t) => {
    const messages = 34_000;
    const { page, problems } = await pages.open(samplePage(sampleModel({ messages })));
    await page.locator('#timeline-canvas').waitFor();
    await page.locator('.uplot canvas').first().waitFor();
    const shown = Number(await page.evaluate("performance.getEntriesByName('first-content')[0].startTime"));
    t.comment(`${3 * messages} events: the verdict is on the page after ${Math.round(shown)} ms`);
    const label = await page.locator('#timeline-canvas').getAttribute('aria-label');
    t.match(label, `confirmed (${messages})`);
    t.match(label, `lost (${68 * 7})`);
    t.strictSame(problems, []);
  });

  for (const [index, foreign] of HOSTILE.entries())
    t.test(`text of a stranger stays text, ${index + 1} of ${HOSTILE.length}`, async (t) => {
      const { page, problems } = await pages.open(samplePage(sampleModel({ messages: 1000, foreign })));
      await page.locator('#files table').waitFor();
      await unfold(page);
      await page.locator('.matrix button').first().click();
      const text = await page.locator('body').innerText();
      t.ok(text.split(foreign).length > 15, 'every view shows the text as it is');
      t.equal(await page.locator('img').count(), 0);
      t.equal(await page.locator('script:not([type])').count(), 1);
      t.equal(await page.evaluate('String(globalThis.pwned)'), 'undefined');
      t.strictSame(problems, []);
    });

  t.test('invisible characters are made visible', async (t) => {
    const foreign = 'a\u202eb\u0007c\u200bd\ne\u2028f';
    const { page } = await pages.open(samplePage(sampleModel({ messages: 1000, foreign })));
    await page.locator('#files table').waitFor();
    const text = String(await page.evaluate('document.body.textContent + document.title'));
    t.match(text, String.raw`a\u{202e}b\u{7}c\u{200b}d\u{a}e\u{2028}f`);
    for (const unseen of '\u202e\u0007\u200b\u2028') t.notOk(text.includes(unseen));
  });

  t.test(
    'the policy of the page refuses markup from text, other scripts, and every connection',
    async (t) => {
      let asked = 0;
      const server = createServer((_, response) => {
        asked += 1;
        response.end();
      }).listen(0, '127.0.0.1');
      t.teardown(() => server.close());
      await new Promise((resolve) => server.once('listening', resolve));
      const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
      const { page } = await pages.open(samplePage(sampleModel({ messages: 100 })));
      await page.locator('#timeline-canvas').waitFor();
      const result = await page.evaluate(`(async () => {
      const tried = [];
      try { document.body.innerHTML = '<b>markup</b>'; tried.push('markup'); } catch {}
      try { await fetch('${address}'); tried.push('fetch'); } catch {}
      const script = document.createElement('script');
      try { script.textContent = 'globalThis.pwned = 1'; document.body.append(script); } catch {}
      const image = new Image();
      const ended = new Promise((resolve) => { image.onload = () => resolve('image'); image.onerror = () => resolve('refused'); });
      image.src = '${address}';
      tried.push(await ended, String(globalThis.pwned));
      return tried;
    })()`);
      t.strictSame(result, ['refused', 'undefined']);
      t.equal(asked, 0);
    },
  );

  t.test('a damaged report says so, and shows what is left', async (t) => {
    const good = sampleModel({ messages: 500 });
    const whole = samplePage(good);
    const data = /id="plugpull-data">([^<]*)</.exec(whole)?.[1] ?? '';
    t.ok(data.length > 100);
    const cases: [string, string, RegExp][] = [
      ['cut data', pageWith(data.slice(0, data.length / 2)), /cannot be unpacked/],
      ['no base64', pageWith('%%%'), /not base64/],
      ['no data', whole.replace(/<script type[^>]*>[^<]*<\/script>/, ''), /has no data/],
      ['another format', samplePage({ ...good, format: 99 }), /format 99/],
      ['no object', samplePage(null), /format undefined/],
      ['no summary', samplePage({ ...good, summary: undefined }), /undefined/],
    ];
    for (const [name, html, expected] of cases) {
      const { page } = await pages.open(html);
      const alert = page.getByRole('alert').first();
      await alert.waitFor();
      t.match(await alert.innerText(), expected, name);
      t.match(await alert.innerText(), 'plugpull report', name);
    }
    const broken = { ...good, runs: [{ ...good.runs[0], injections: null }] };
    const { page } = await pages.open(samplePage(broken));
    await page.getByText('This part cannot be shown').first().waitFor();
    t.match(await page.locator('#verdict').innerText(), /confirmed messages were lost/);
  });
});
