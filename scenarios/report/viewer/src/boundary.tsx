import { Component, type ComponentChildren } from 'preact';
import { describe } from './load.js';

/** A section of the report. If its data is damaged, it shows the error as text, and the other sections stay. */
export class Section extends Component<
  { id: string; title: string; children: ComponentChildren },
  { error: string | null }
> {
  override state = { error: null as string | null };

  override componentDidCatch(error: unknown): void {
    this.setState({ error: describe(error) });
  }

  override render() {
    const { id, title, children } = this.props;
    const { error } = this.state;
    return (
      <section id={id} aria-labelledby={`${id}-title`}>
        <h2 id={`${id}-title`}>{title}</h2>
        {error === null ? (
          children
        ) : (
          <p class="failure" role="alert">
            This part cannot be shown, its data is damaged: {error}
          </p>
        )}
      </section>
    );
  }
}
