import type { ComponentChildren } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';

/** A wide table that scrolls by itself, so that the page does not. It is a stop of the keyboard only while it scrolls. */
export function Scroll({ label, children }: { label: string; children: ComponentChildren }) {
  const frame = useRef<HTMLElement>(null);
  const [scrolls, setScrolls] = useState(false);
  useEffect(() => {
    const { current } = frame;
    if (current === null) return;
    const observer = new ResizeObserver(() => setScrolls(current.scrollWidth > current.clientWidth));
    observer.observe(current);
    return () => observer.disconnect();
  }, []);
  return (
    <section ref={frame} class="scroll" aria-label={`Table: ${label}`} {...(scrolls ? { tabIndex: 0 } : {})}>
      {children}
    </section>
  );
}
