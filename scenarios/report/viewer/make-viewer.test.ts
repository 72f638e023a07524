import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const viewer = readFileSync(fileURLToPath(new URL('viewer.html', import.meta.url)), 'utf8');

t.test('the built viewer is one small file that refers to no other', async (t) => {
  t.ok(viewer.length > 50_000, 'preact, uPlot and the viewer are inside');
  t.ok(viewer.length < 150_000, `${viewer.length} bytes`);
  t.comment(`${viewer.length} bytes`);
  t.notMatch(viewer, /<(script|link|img|iframe)[^>]* (src|href)=/);
  t.notMatch(viewer, /@import|url\(/);
  t.equal(viewer.split('<!--plugpull-data-->').length, 2, 'there is one place for the data');
  t.match(viewer, /http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'sha256-/);
  t.equal(viewer.split('Permission is hereby granted').length, 3, 'both licences are inside');
});
