import { useRef, useState } from 'preact/hooks';

/** A line to copy, for example a shell command, with a button that copies it. */
export function CopyLine({ text, label }: { text: string; label: string }) {
  const line = useRef<HTMLElement>(null);
  const [result, setResult] = useState('');
  const copy = async () => {
    const done = await copyText(text, line.current);
    setResult(done ? 'copied' : 'selected: press Ctrl+C');
  };
  return (
    <div class="copy-line">
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: a long line scrolls, also by keyboard. */}
      <code ref={line} tabIndex={0}>
        {text}
      </code>
      <button type="button" onClick={copy} aria-label={`Copy ${label}`}>
        Copy
      </button>
      <span role="status">{result}</span>
    </div>
  );
}

/** Copies a text. Browsers may refuse their clipboard to a file: then the old command copies the selected line. */
async function copyText(text: string, shown: HTMLElement | null): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    if (shown === null) return false;
    getSelection()?.selectAllChildren(shown);
    return document.execCommand('copy');
  }
}
