// Events on their way to the hub. Their ids are fixed before they are sent: whoever does not learn what
// became of them may publish them again, and the hub stores them once.

import type { Answer, Connection } from "./connection.ts";
import { HubError } from "./error.ts";
import type { Ack, NewEvent } from "./messages.ts";

/** Batches waiting or under way. */
const MOST = 256;

interface Batch {
  events: NewEvent[];
  resolve(ack: Ack): void;
  reject(error: HubError): void;
}

export class Publisher {
  /** What came while the first connection, or the next one, was being made. */
  #waiting: Batch[] = [];
  #underWay = 0;

  constructor(private readonly newId: () => string) {}

  /** Over the connection; without one the batch waits for `connected` or `disconnected`. */
  publish(events: NewEvent[], connection: Connection | undefined): Promise<Ack> {
    const named = events.map((event) => ({ ...event, id: event.id ?? this.newId() }));
    return new Promise((resolve, reject) => {
      const batch = { events: named, resolve, reject };
      if (this.#underWay + this.#waiting.length >= MOST) {
        reject(new HubError("limit_exceeded", `${MOST} batches are under way`, true, named));
      } else if (connection) {
        this.#send(batch, connection);
      } else {
        this.#waiting.push(batch);
      }
    });
  }

  connected(connection: Connection): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const batch of waiting) this.#send(batch, connection);
  }

  disconnected(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { events, reject } of waiting) reject(notConnected(events));
  }

  #send(batch: Batch, connection: Connection): void {
    this.#underWay += 1;
    const answered = (answer: Answer): void => {
      this.#underWay -= 1;
      settle(batch, answer);
    };
    try {
      connection.ask({ type: "publish", events: batch.events }, answered);
    } catch (error) {
      // No JSON, such as a circle or a BigInt.
      this.#underWay -= 1;
      batch.reject(new HubError("invalid_event", String(error), false, batch.events));
    }
  }
}

export function notConnected(events: NewEvent[]): HubError {
  return new HubError("not_connected", "there is no connection to the hub", true, events);
}

function settle({ events, resolve, reject }: Batch, answer: Answer): void {
  if (answer === "unsent") reject(notConnected(events));
  else if (answer !== "lost" && answer.type === "ack") resolve(answer);
  else if (answer !== "lost" && answer.type === "error") {
    reject(new HubError(answer.code, answer.message, answer.retryable, events));
  } else {
    const why = "the connection was lost before the hub answered; publishing the same events again is safe";
    reject(new HubError("outcome_unknown", why, true, events));
  }
}
