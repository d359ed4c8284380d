// All subscriptions of a client, over any number of connections.

import type { Alarm } from "./alarm.ts";
import type { Backoff } from "./backoff.ts";
import type { Answer, Connection } from "./connection.ts";
import { Cursor, type Subscription, type SubscriptionHandlers, type SubscriptionRequest } from "./cursor.ts";
import type { Listeners } from "./listeners.ts";
import type { ServerMessage } from "./messages.ts";
import { offsetsBetween, type Position } from "./position.ts";
import type { ClientEvents } from "./status.ts";

export class Subscriptions {
  /** Events handed on. */
  eventsReceived = 0;
  /** Offsets from the subscription furthest behind to the head, at the last ping. */
  lag: number | undefined;

  readonly #listeners: Listeners<ClientEvents>;
  readonly #backoff: Backoff;
  readonly #again: Alarm;
  readonly #cursors = new Map<string, Cursor>();
  readonly #call = (run: () => void): void => this.#listeners.call(run);
  #connection: Connection | undefined;

  /** `alarm` makes the alarm that asks again for what the hub could not do. */
  constructor(
    listeners: Listeners<ClientEvents>,
    backoff: Backoff,
    alarm: (ring: () => void) => Alarm,
    private readonly now: () => number,
  ) {
    this.#listeners = listeners;
    this.#backoff = backoff;
    this.#again = alarm(() => this.#askWaiting());
  }

  add(request: SubscriptionRequest, on: SubscriptionHandlers): Subscription {
    const cursor = new Cursor(this.#freeName(request.topics), request, on, (cursor) => this.#leave(cursor));
    this.#cursors.set(cursor.sub, cursor);
    this.#ask(cursor);
    return cursor;
  }

  /** There is a connection that takes commands. */
  opened(connection: Connection): void {
    this.#connection = connection;
    this.#askWaiting();
  }

  /** There is none any more. */
  lost(): void {
    this.#connection = undefined;
    this.#again.clear();
    for (const cursor of this.#cursors.values()) cursor.lost();
  }

  received(message: ServerMessage): void {
    if (message.type === "ping") {
      for (const sub of message.caught_up) this.#standing(sub)?.settle(message.head);
      this.lag = this.#lagBehind(message.head);
      return;
    }
    const cursor = "sub" in message ? this.#standing(message.sub) : undefined;
    if (!cursor) return; // what was on its way when the subscription ended
    switch (message.type) {
      case "events":
        this.eventsReceived += cursor.take(message, this.#call);
        return;
      case "live":
        cursor.goLive(message, this.#call);
        return;
      case "gap": {
        const gap = cursor.skip(message, this.#call);
        this.#listeners.tell("gap", { ...gap, sub: cursor.sub, topics: cursor.topics });
        return;
      }
      case "unsubscribed": {
        const code = message.code ?? "ended";
        const why = code === "forbidden" ? `no grant to subscribe to ${cursor.topics.join(", ")}` : code;
        this.#deny(cursor, code, why);
      }
    }
  }

  #lagBehind(head: Position): number {
    const lags = [...this.#cursors.values()].map(({ position }) =>
      // Both ends are counted, and the position itself is not behind.
      position === undefined ? 0 : (offsetsBetween(position, head) ?? 1) - 1,
    );
    return Math.max(0, ...lags);
  }

  /** The subscription of this name, if the hub has confirmed that very one. */
  #standing(sub: string): Cursor | undefined {
    const cursor = this.#cursors.get(sub);
    return cursor?.phase === "standing" ? cursor : undefined;
  }

  #askWaiting(): void {
    for (const cursor of [...this.#cursors.values()]) this.#ask(cursor);
  }

  #ask(cursor: Cursor): void {
    if (!this.#connection || cursor.phase !== "waiting") return;
    cursor.phase = "asked";
    cursor.sending = this.#connection.ask(cursor.question, (answer) => this.#answered(cursor, answer));
  }

  #answered(cursor: Cursor, answer: Answer): void {
    if (cursor.phase === "ended") return;
    if (answer === "lost" || answer === "unsent") {
      cursor.lost();
    } else if (answer.type === "subscribed") {
      cursor.stands(answer);
      this.#backoff.reset();
    } else if (answer.type === "error" && answer.retryable) {
      cursor.lost();
      this.#again.set(this.now() + this.#backoff.next());
    } else if (answer.type === "error") {
      this.#deny(cursor, answer.code, answer.message);
    }
  }

  #deny(cursor: Cursor, code: string, message: string): void {
    cursor.phase = "ended";
    this.#cursors.delete(cursor.sub);
    const { sub, topics } = cursor;
    this.#call(() => cursor.handlers.denied?.({ code, message }));
    this.#listeners.tell("denied", { sub, topics, code, message });
  }

  #leave(cursor: Cursor): void {
    const isKnown = cursor.phase === "standing" || (cursor.phase === "asked" && !cursor.sending?.cancel());
    cursor.phase = "ended";
    this.#cursors.delete(cursor.sub);
    if (isKnown) this.#connection?.ask({ type: "unsubscribe", sub: cursor.sub }, () => {});
  }

  /** After the topics, so that the hub makes the same frames for all who subscribe to the same. */
  #freeName(topics: string[]): string {
    const plain = topics.join(",");
    const base = /^[\x21-\x7e]{1,56}$/.test(plain) ? plain : "";
    for (let number = 1; ; number += 1) {
      const name = number === 1 && base ? base : `${base}~${number}`;
      if (!this.#cursors.has(name)) return name;
    }
  }
}
