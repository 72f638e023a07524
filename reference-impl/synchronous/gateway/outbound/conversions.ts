/** Bytes of converted messages that the sessions of a worker hold at most, unless a single message needs more. */
const MAX_CONVERTED_BYTES = 64 * 2 ** 20;

/** A share of the memory for converted messages. */
export interface Reservation {
  /** Resolves when the bytes are granted, or when the reservation is released before that. */
  readonly ready: Promise<void>;
  /** Whether the bytes are not granted yet. */
  readonly isWaiting: boolean;
  /** Gives the bytes back. It may be called twice. */
  release: () => void;
}

/**
 * The memory that all outbound sessions of a worker use for converted messages. A message that does not fit waits until others
 * are sent. The first one that waits comes first. A session must not wait while it holds a reservation.
 */
export class Conversions {
  readonly #limitBytes: number;
  #usedBytes = 0;
  readonly #waiting = new Set<{ bytes: number; grant: () => void }>();

  constructor(limitBytes = MAX_CONVERTED_BYTES) {
    this.#limitBytes = limitBytes;
  }

  /** Asks for bytes. A message above the limit gets them when no other message has any. */
  reserve(bytes: number): Reservation {
    let grant: () => void = () => undefined;
    const ready = new Promise<void>((resolve) => {
      grant = resolve;
    });
    const request = { bytes, grant };
    let isReleased = false;
    this.#waiting.add(request);
    this.#grantNext();
    const waiting = this.#waiting;
    return {
      ready,
      get isWaiting() {
        return waiting.has(request);
      },
      release: () => {
        if (isReleased) return;
        isReleased = true;
        if (!this.#waiting.delete(request)) this.#usedBytes -= bytes;
        grant();
        this.#grantNext();
      },
    };
  }

  #grantNext(): void {
    for (const request of this.#waiting) {
      if (this.#usedBytes > 0 && this.#usedBytes + request.bytes > this.#limitBytes) return;
      this.#waiting.delete(request);
      this.#usedBytes += request.bytes;
      request.grant();
    }
  }
}
