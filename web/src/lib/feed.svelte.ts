// The rows of a feed: bounded, filtered, pausable; what is painted of a stream of any speed.

import type { Client, HubEvent, Replay, Subscription } from "./client";
import { type Brush, brush } from "./painter";
import type { Matcher } from "./query";
import { type Numbered, Ring } from "./ring";

/** One line of a feed. */
export type Row =
  | { kind: "event"; event: HubEvent; replayed: boolean; at: number }
  | { kind: "gap"; from: string; to: string; reason: string; missed: number | undefined }
  | { kind: "caught-up" };

/** What a screen shows of a feed; replaced as a whole, at most once a frame. */
export interface Shown {
  /** The newest has the highest number; a row keeps its own, so that it keeps its identity. */
  rows: Numbered<Row>;
  /** Rows with the same number are the same row only within the same generation. */
  generation: number;
  /** Whether there is nothing but the line that says where the replay ended. */
  isEmpty: boolean;
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

const EMPTY: Shown = {
  rows: new Ring<Row>(0),
  generation: 0,
  isEmpty: true,
  waiting: 0,
  sampling: 1,
  rate: 0,
  isLive: false,
};

export class Feed {
  shown = $state.raw<Shown>(EMPTY);
  denied = $state.raw<Denied>();

  readonly #all = new Ring<Row>(KEPT);
  #matching = new Ring<Row>(KEPT);
  #matcher: Matcher = () => true;
  #frozenRows: Numbered<Row> | undefined;
  #generation = 0;
  #isLive = false;
  #rate = new Rate();
  readonly #brush: Brush;
  #subscription: Subscription | undefined;
  #settle: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    this.#brush = brush(0, () => this.#paint());
  }

  /** Follows these patterns from now on, in place of what was followed before. */
  follow(client: Client, topics: string[], replay: Replay): void {
    this.unfollow();
    this.#all.clear();
    this.#matching.clear();
    this.#generation += 1;
    this.#isLive = false;
    this.#frozenRows = undefined;
    this.#rate = new Rate();
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
    clearTimeout(this.#settle);
  }

  /** Shows only what matches, of what is kept and of what comes. */
  filter(matcher: Matcher): void {
    this.#matcher = matcher;
    this.#generation += 1;
    this.#matching = new Ring(KEPT);
    for (const row of this.#all.newest(KEPT)) if (this.#isShown(row)) this.#matching.push(row);
    if (this.#frozenRows) this.#frozenRows = this.#matching.snapshot(FROZEN);
    this.#brush.touch();
  }

  /** Holds what is in view; the stream runs on behind it. */
  freeze(): void {
    if (this.#frozenRows) return;
    this.#frozenRows = this.#matching.snapshot(FROZEN);
    this.#brush.touch();
  }

  /** Shows the newest again. */
  thaw(): void {
    this.#frozenRows = undefined;
    this.#brush.touch();
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
    const rows = this.#frozenRows ?? this.#matching;
    const { first, end } = rows;
    this.#rate.roll(performance.now());
    this.shown = {
      rows,
      generation: this.#generation,
      isEmpty: end === first || (end === first + 1 && rows.get(first)?.kind === "caught-up"),
      waiting: this.#matching.end - end,
      sampling: this.#rate.sampling,
      rate: this.#rate.perSecond,
      isLive: this.#isLive,
    };
    // A stream that has ended does not tell that its rate is nought now.
    clearTimeout(this.#settle);
    if (this.#rate.perSecond > 0) this.#settle = setTimeout(() => this.#brush.touch(), 1000);
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
    this.roll(now);
    this.#counted += 1;
    // Within a second that begins calm, a flood is noticed before it has passed.
    if (this.sampling === 1 && this.#counted > READABLE * 2) {
      this.sampling = Math.ceil(this.#counted / READABLE);
    }
    return this.#counted % this.sampling === 0;
  }

  /** Draws the line under a second that is over. */
  roll(now: number): void {
    const seconds = (now - this.#begun) / 1000;
    if (seconds < 1) return;
    this.perSecond = seconds > 2 ? 0 : Math.round(this.#counted / seconds);
    this.sampling = Math.max(1, Math.ceil(this.perSecond / READABLE));
    this.#begun = now;
    this.#counted = 0;
  }
}
