// What is to be sent, no faster than the hub takes it: whose messages come too fast is thrown out (4429).

import { Alarm } from "./alarm.ts";
import type { Environment } from "./environment.ts";

const SECOND = 1_000;

/** Something on its way. */
export interface Sending {
  /** Takes it back; false if it has gone out. */
  cancel(): boolean;
}

export class Outbox {
  readonly #environment: Environment;
  readonly #waiting = new Set<() => void>();
  /** When the messages of the last second were sent. */
  #sent: number[] = [];
  #rate: number;
  readonly #alarm: Alarm;

  /** @param rate messages in a second. */
  constructor(environment: Environment, rate: number) {
    this.#environment = environment;
    this.#rate = rate;
    this.#alarm = new Alarm(environment, () => this.#pump());
  }

  set rate(rate: number) {
    this.#rate = rate;
    this.#pump();
  }

  /** Sends in its turn. */
  add(send: () => void): Sending {
    // Of its own, so that each can be taken back.
    const entry = (): void => send();
    this.#waiting.add(entry);
    this.#pump();
    return { cancel: () => this.#waiting.delete(entry) };
  }

  /** Sends now, before everything that waits. */
  urgent(send: () => void): void {
    this.#forget();
    this.#sent.push(this.#environment.now());
    send();
  }

  clear(): void {
    this.#waiting.clear();
    this.#alarm.clear();
  }

  #pump(): void {
    this.#forget();
    for (const send of this.#waiting) {
      if (this.#sent.length >= this.#rate) {
        this.#alarm.set(this.#sent[0]! + SECOND);
        return;
      }
      this.#waiting.delete(send);
      this.urgent(send);
    }
  }

  #forget(): void {
    const now = this.#environment.now();
    this.#sent = this.#sent.filter((at) => at > now - SECOND);
  }
}
