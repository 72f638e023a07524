import { render } from 'preact';
import './style.css';
import 'uplot/dist/uPlot.min.css';
import { App } from './app.js';
import { describe, loadModel } from './load.js';

const host = document.getElementById('report') ?? document.body.appendChild(document.createElement('div'));
window.addEventListener('error', ({ message }) => showFailure(message));
window.addEventListener('unhandledrejection', ({ reason }) => showFailure(describe(reason)));
start().catch((error: unknown) => showFailure(describe(error)));

async function start(): Promise<void> {
  const model = await loadModel();
  document.title = `${model.summary.verdict}: ${model.target} – PlugPull report`;
  host.replaceChildren();
  render(<App model={model} />, host);
  // Tests and people measure from here: the verdict is on the page, the plots follow.
  performance.mark('first-content');
}

/** Shows an error as text above what is there, so that no failure looks like an empty report. */
function showFailure(what: string): void {
  const box = document.createElement('div');
  box.className = 'failure';
  box.setAttribute('role', 'alert');
  const title = document.createElement('strong');
  title.textContent = 'This report cannot be shown completely.';
  const text = document.createElement('p');
  text.textContent = `${what}. Write the report again: plugpull report EVIDENCE`;
  box.append(title, text);
  document.querySelector('#report main > p')?.remove();
  document.body.prepend(box);
}
