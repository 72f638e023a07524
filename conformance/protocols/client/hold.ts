/** The state of a receiver that can be held: while it is, what it does next waits. */
export class Hold {
  #untilReleased: Promise<void> | undefined;
  #release = () => {};

  /** Resolves when the receiver is released; undefined when it is not held. */
  get untilReleased(): Promise<void> | undefined {
    return this.#untilReleased;
  }

  begin(): void {
    this.#untilReleased ??= new Promise((resolve) => {
      this.#release = resolve;
    });
  }

  end(): void {
    this.#untilReleased = undefined;
    this.#release();
  }
}
