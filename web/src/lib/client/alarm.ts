// One timer that can be set again, by the clock that only goes forward.

import type { Environment } from "./environment.ts";

/** What timers can wait at most; a longer time would be over at once. */
const LONGEST = 2 ** 31 - 1;

export class Alarm {
  #timer: unknown;
  #at: number | undefined;

  constructor(
    private readonly environment: Environment,
    private readonly ring: () => void,
  ) {}

  /** When it will ring. */
  get at(): number | undefined {
    return this.#at;
  }

  set(at: number): void {
    this.clear();
    if (at === Infinity) return;
    this.#at = at;
    this.#wait(at);
  }

  clear(): void {
    if (this.#timer !== undefined) this.environment.clearTimeout(this.#timer as never);
    this.#timer = undefined;
    this.#at = undefined;
  }

  #wait(at: number): void {
    const left = Math.max(0, at - this.environment.now());
    this.#timer = this.environment.setTimeout(
      () => {
        if (this.environment.now() < at) {
          this.#wait(at);
          return;
        }
        this.clear();
        this.ring();
      },
      Math.min(Math.ceil(left), LONGEST),
    );
  }
}
