/** Width of a tooltip in pixels, at most: as in the style sheet. */
const MAX_WIDTH = 300;

/** Text beside the pointer. What it says is also in a table or in a line that programs read aloud. */
export function Tooltip({
  x,
  y,
  width,
  lines,
}: {
  x: number;
  y: number;
  width: number;
  lines: readonly string[];
}) {
  const left = Math.max(0, Math.min(x + 12, width - MAX_WIDTH));
  return (
    <div class="tooltip" aria-hidden="true" style={{ left: `${left}px`, top: `${y + 14}px` }}>
      {lines.map((line) => (
        <div key={line}>{line}</div>
      ))}
    </div>
  );
}
