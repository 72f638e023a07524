// Makes viewer.html: the browser part of the HTML report, without data. `docker/setup.mjs` runs it after the compiler.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const output = fileURLToPath(new URL('viewer.html', import.meta.url));

const { outputFiles } = await build({
  absWorkingDir: root,
  entryPoints: ['scenarios/report/viewer/src/viewer.tsx'],
  tsconfig: 'scenarios/report/viewer/src/tsconfig.json',
  outdir: 'dist/scenarios/report/viewer',
  bundle: true,
  minify: true,
  write: false,
  format: 'iife',
  target: 'es2022',
  charset: 'ascii',
  legalComments: 'none',
});
const script = bundled('.js');
const style = bundled('.css');
writeFileSync(output, page(script, style, ['preact', 'uplot'].map(licenceOf)));

/** Returns the licence of a package that the bundle contains. It asks for its text in every copy. */
function licenceOf(name: string): string {
  const text = readFileSync(`${root}node_modules/${name}/LICENSE`, 'utf8').trim();
  return `${name}:\n${text.replaceAll('--', '- -')}`;
}

function bundled(extension: string): string {
  const text = outputFiles.find(({ path }) => path.endsWith(extension))?.text.trim();
  if (text === undefined) throw new Error(`the bundle has no ${extension} file`);
  // Each of these would end the element in which the bundle stands, so that the browser refuses it by its hash.
  const end = /<\/(script|style)|<!--/i.exec(text);
  if (end !== null) throw new Error(`the bundle of ${extension} contains ${end[0]}`);
  return text;
}

/**
 * Returns the page. Its policy allows this script and this style by their hashes and nothing else, no connection
 * included. So foreign text in the data can neither run nor load anything, even if the viewer showed it as markup.
 */
function page(script: string, style: string, licences: readonly string[]): string {
  const policy = [
    "default-src 'none'",
    `script-src '${hashOf(script)}'`,
    `style-src '${hashOf(style)}'`,
    "base-uri 'none'",
    "form-action 'none'",
    // No text becomes markup, whatever a later version of the viewer does.
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
  ].join('; ');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>PlugPull report</title>
<style>${style}</style>
</head>
<body>
<div id="report"><main><h1>PlugPull report</h1><p>Reading the data…</p>
<noscript><p>This report needs JavaScript. It loads nothing from the network.</p></noscript></main></div>
<!--plugpull-data-->
<script>${script}</script>
<!--
This file contains these packages.

${licences.join('\n\n')}
-->
</body>
</html>
`;
}

function hashOf(text: string): string {
  return `sha256-${createHash('sha256').update(text).digest('base64')}`;
}
