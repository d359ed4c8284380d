// How long to wait before the next attempt: full jitter, so that many clients do not come back together
// ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

const FIRST_MS = 500;
const MOST_MS = 20_000;

export class Backoff {
  #failures = 0;

  constructor(private readonly random: () => number) {}

  /** Milliseconds until the next attempt; each time it is asked, the longest wait doubles. */
  next(): number {
    const most = Math.min(MOST_MS, FIRST_MS * 2 ** this.#failures);
    // From the sixth on nothing grows.
    this.#failures = Math.min(this.#failures + 1, 6);
    return this.random() * most;
  }

  reset(): void {
    this.#failures = 0;
  }
}
