// The rows of a feed: bounded, filtered, pausable; what is painted of a stream of any speed.

import type { Client, HubEvent, Replay, Subscription } from "./client";
import { type Brush, brush } from "./painter";
import type { Matcher } from "./query";
import { Ring } from "./ring";

/** One line of a feed. */
export type Row =
  | { kind: "event"; event: HubEvent; replayed: boolean; at: number }
  | { kind: "gap"; from: string; to: string; reason: string; missed: number | undefined }
  | { kind: "caught-up" };

/** What a screen shows of a feed; replaced as a whole, at most once a frame. */
export interface Shown {
  /** Oldest first. */
  rows: readonly Row[];
  /** Whether there is nothing but the line that says where the replay ended. */
  isEmpty: boolean;
  /** The number of the first of `rows`; it only grows, so that a row keeps its identity. */
  first: number;
  /** Matching events that came since the feed was frozen. */
  waiting: number;
  /** One in so many events is kept; 1 is all. */
  sampling: number;
  /** Events a second that match the filter, in the last second. */
  rate: number;
  /** Whether the replay is over. */
  isLive: boolean;
}

export interface Denied {
  code: string;
  message: string;
}

/** More rows than anybody scrolls through. */
const KEPT = 10_000;
/** What a frozen feed keeps in view while the stream runs on. */
const FROZEN = 1_000;
/** Above this many events a second a row is a sample: nobody reads more, and the page stays at sixty frames. */
const READABLE = 200;

const EMPTY: Shown = { rows: [], isEmpty: true, first: 0, waiting: 0, sampling: 1, rate: 0, isLive: false };

export class Feed {
  shown = $state.raw<Shown>(EMPTY);
  denied = $state.raw<Denied>();
  frozen = $state(false);

  readonly #all = new Ring<Row>(KEPT);
  #matching = new Ring<Row>(KEPT);
  #matcher: Matcher = () => true;
  #frozenRows: { rows: Row[]; first: number; end: number } | undefined;
  #isLive = false;
  #rate = new Rate();
  readonly #brush: Brush;
  #subscription: Subscription | undefined;

  constructor() {
    this.#brush = brush(0, () => this.#paint());
  }

  /** Follows these patterns from now on, in place of what was followed before. */
  follow(client: Client, topics: string[], replay: Replay): void {
    this.unfollow();
    this.#all.clear();
    this.#matching.clear();
    this.#isLive = false;
    this.#frozenRows = undefined;
    this.#rate = new Rate();
    this.frozen = false;
    this.denied = undefined;
    this.shown = EMPTY;
    this.#subscription = client.subscribe(
      { topics, replay },
      {
        events: ({ events, replayed }) => this.#take(events, replayed),
        live: () => {
          if (!this.#isLive && this.#all.length > 0) this.#push({ kind: "caught-up" });
          this.#isLive = true;
          this.#brush.touch();
        },
        gap: ({ from, to, reason, missed }) => {
          this.#push({ kind: "gap", from, to, reason, missed });
          this.#brush.touch();
        },
        denied: (error) => (this.denied = error),
      },
    );
  }

  /** Ends the stream; the rows stay. */
  unfollow(): void {
    this.#subscription?.unsubscribe();
    this.#subscription = undefined;
  }

  /** Shows only what matches, of what is kept and of what comes. */
  filter(matcher: Matcher): void {
    this.#matcher = matcher;
    this.#matching = new Ring(KEPT);
    for (const row of this.#all.newest(KEPT)) if (this.#isShown(row)) this.#matching.push(row);
    if (this.#frozenRows) this.#freeze();
    this.#brush.touch();
  }

  /** Holds what is in view; the stream runs on behind it. */
  freeze(): void {
    if (this.frozen) return;
    this.frozen = true;
    this.#freeze();
    this.#brush.touch();
  }

  /** Shows the newest again. */
  thaw(): void {
    this.frozen = false;
    this.#frozenRows = undefined;
    this.#brush.touch();
  }

  #freeze(): void {
    const rows = this.#matching.newest(FROZEN);
    const end = this.#matching.end;
    this.#frozenRows = { rows, first: end - rows.length, end };
  }

  #take(events: readonly HubEvent[], replayed: boolean): void {
    const at = performance.now();
    for (const event of events) {
      const row: Row = { kind: "event", event, replayed, at };
      if (replayed) {
        this.#push(row);
        continue;
      }
      const matches = this.#matcher(event);
      const isSample = matches ? this.#rate.count(at) : true;
      if (!isSample) continue;
      this.#all.push(row);
      if (matches) this.#matching.push(row);
    }
    this.#brush.touch();
  }

  #push(row: Row): void {
    this.#all.push(row);
    if (this.#isShown(row)) this.#matching.push(row);
  }

  #isShown(row: Row): boolean {
    return row.kind !== "event" || this.#matcher(row.event);
  }

  #paint(): void {
    const held = this.#frozenRows;
    const rows = held?.rows ?? this.#matching.newest(KEPT);
    this.shown = {
      rows,
      isEmpty: rows.every((row) => row.kind === "caught-up"),
      first: held?.first ?? this.#matching.first,
      waiting: held ? this.#matching.end - held.end : 0,
      sampling: this.#rate.sampling,
      rate: this.#rate.perSecond,
      isLive: this.#isLive,
    };
  }
}

/** How fast events come, and which of them are shown when they come too fast to be read. */
class Rate {
  sampling = 1;
  perSecond = 0;
  #begun = 0;
  #counted = 0;

  /** Counts an event; true if it is one to show. */
  count(now: number): boolean {
    if (now - this.#begun >= 1000) {
      const seconds = (now - this.#begun) / 1000;
      this.perSecond = seconds > 2 ? 0 : Math.round(this.#counted / seconds);
      this.sampling = Math.max(1, Math.ceil(this.perSecond / READABLE));
      this.#begun = now;
      this.#counted = 0;
    }
    this.#counted += 1;
    // Within a second that begins calm, a flood is noticed before it has passed.
    if (this.#counted > READABLE * 2 && this.sampling === 1)
      this.sampling = Math.ceil(this.#counted / READABLE);
    return this.#counted % this.sampling === 0;
  }
}
