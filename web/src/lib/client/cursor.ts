// One subscription's place in the log, over any number of connections: what was handed on is not handed on
// again, and what was not is asked for.

import type { Events, GapMessage, HubEvent, Live, Mode, Replay, Subscribed } from "./messages.ts";
import { isSameEpoch, later, offsetOf, offsetsBetween, type Position } from "./position.ts";
import type { Sending } from "./outbox.ts";

export interface SubscriptionRequest {
  topics: string[];
  /** `latest`: of each (topic, key) only the newest, at most `maxHz` times a second. Default: `all`. */
  mode?: Mode | undefined;
  maxHz?: number | undefined;
  /** What is given of the past, unless `resume` is known. Default: nothing. */
  replay?: Replay | undefined;
  /** Where an earlier subscription to the same stopped. */
  resume?: Position | undefined;
}

/** What a subscription tells. Each is called in order, never while another runs. */
export interface SubscriptionHandlers {
  /** `replayed`: before `live`. `skipped`: matching events passed over in mode `latest`. */
  events(batch: { events: HubEvent[]; position: Position; skipped: number; replayed: boolean }): void;
  /** Everything up to here was given; comes again after each reconnect. */
  live?(position: Position): void;
  gap?(gap: Gap): void;
  /** Refused or ended by the hub; it is not tried again. */
  denied?(error: { code: string; message: string }): void;
}

/** Events that will not come, `from` and `to` included. */
export interface Gap {
  from: Position;
  to: Position;
  reason: string;
  position: Position;
  /** How many offsets that are, of which other topics may have had some; absent between two histories. */
  missed?: number;
}

export interface Subscription {
  readonly sub: string;
  readonly topics: readonly string[];
  /** Everything up to here was handed on. */
  readonly position?: Position | undefined;
  unsubscribe(): void;
}

export class Cursor implements Subscription {
  position?: Position | undefined;
  /** `waiting`: to be asked for on the next connection. `asked`: no answer yet, so that what comes under its name is for an earlier one. */
  phase: "waiting" | "asked" | "standing" | "ended" = "waiting";
  /** The question under way. */
  sending: Sending | undefined;
  readonly topics: readonly string[];
  #live = false;

  constructor(
    readonly sub: string,
    private readonly request: SubscriptionRequest,
    readonly handlers: SubscriptionHandlers,
    private readonly end: (cursor: Cursor) => void,
  ) {
    this.topics = [...request.topics];
    if (request.resume !== undefined) this.position = request.resume;
  }

  unsubscribe(): void {
    if (this.phase !== "ended") this.end(this);
  }

  /** What to ask the hub for. */
  get question() {
    const { mode, maxHz, replay } = this.request;
    return {
      type: "subscribe" as const,
      sub: this.sub,
      topics: this.topics,
      ...(mode === undefined ? {} : { mode }),
      ...(maxHz === undefined ? {} : { max_hz: maxHz }),
      ...(this.position !== undefined ? { resume: this.position } : replay === undefined ? {} : { replay }),
    };
  }

  stands(answer: Subscribed): void {
    this.phase = "standing";
    this.sending = undefined;
    this.#live = false;
    // A known position stays: a gap between the two is yet to be told. And the newest values, though older,
    // come after the position told here.
    const newest = this.request.replay !== undefined && "latest" in this.request.replay;
    if (this.position === undefined && !newest) this.position = answer.position;
  }

  lost(): void {
    this.sending = undefined;
    if (this.phase !== "ended") this.phase = "waiting";
  }

  /** Hands on what was not handed on before; tells how many. */
  take(message: Events, call: (run: () => void) => void): number {
    const { position, skipped = 0 } = message;
    const events = this.#unseen(message);
    if (events.length > 0) {
      call(() => this.handlers.events({ events, position, skipped, replayed: !this.#live }));
    }
    this.settle(position);
    return events.length;
  }

  goLive(message: Live, call: (run: () => void) => void): void {
    this.#live = true;
    this.settle(message.position);
    call(() => this.handlers.live?.(message.position));
  }

  skip(message: GapMessage, call: (run: () => void) => void): Gap {
    const { from, to, reason, position } = message;
    const missed = offsetsBetween(from, to);
    const gap: Gap = { from, to, reason, position, ...(missed === undefined ? {} : { missed }) };
    call(() => this.handlers.gap?.(gap));
    this.settle(position);
    return gap;
  }

  /** Everything up to here was handed on. */
  settle(position: Position): void {
    this.position = later(this.position, position);
  }

  #unseen(message: Events): HubEvent[] {
    const { events, position } = message;
    if (this.position === undefined || !isSameEpoch(this.position, position)) return events;
    const seen = offsetOf(this.position) ?? 0;
    return events.every((event) => event.offset > seen)
      ? events
      : events.filter((event) => event.offset > seen);
  }
}
