// The hub's own numbers as they come on `hub.metrics`, one event a second from each node.

import type { Client, HubEvent, Subscription } from "./client";
import { type Brush, brush } from "./painter";
import { Series } from "./series";

export const FIELDS = [
  "events_per_s",
  "deliveries_per_s",
  "connections",
  "subscriptions",
  "slowest_lag",
  "cpu_percent",
  "memory_bytes",
  "journal_bytes",
  "publish_failures",
] as const;
export type Field = (typeof FIELDS)[number];

/** What one moment of the cluster looks like: sums, and the worst lag. */
const SUMMED: readonly Field[] = FIELDS.filter((field) => field !== "slowest_lag");

/** A node that was silent for longer is not counted any more. */
const GONE = 5_000;
/** An hour of seconds, with room for a clock that hurries. */
const KEPT = 4_000;

export class Vitals {
  readonly series = new Series(FIELDS.length, KEPT);
  /** Moves when there is something new to paint, at most four times a second. */
  version = $state(0);
  denied = $state.raw<{ code: string; message: string }>();
  /** When the newest numbers came, by `performance.now()`. */
  heardAt = $state<number>();
  /** How long each node has been up, in seconds. */
  nodes = $state.raw<ReadonlyMap<string, number>>(new Map());

  readonly #newest = new Map<string, { time: number; values: Record<Field, number>; uptime: number }>();
  readonly #brush: Brush;
  #subscription: Subscription | undefined;

  constructor() {
    this.#brush = brush(250, () => {
      this.version += 1;
      this.nodes = new Map([...this.#newest].map(([node, { uptime }]) => [node, uptime]));
    });
  }

  follow(client: Client, minutes: number): void {
    this.unfollow();
    this.series.clear();
    this.#newest.clear();
    this.denied = undefined;
    this.#subscription = client.subscribe(
      { topics: ["hub.metrics"], replay: { since: `${minutes}m` } },
      {
        events: ({ events }) => {
          for (const event of events) this.#take(event);
          this.heardAt = performance.now();
          this.#brush.touch();
        },
        denied: (error) => (this.denied = error),
      },
    );
  }

  unfollow(): void {
    this.#subscription?.unsubscribe();
    this.#subscription = undefined;
  }

  #take(event: HubEvent): void {
    const time = Date.parse(event.time);
    const data = event.data;
    if (Number.isNaN(time) || typeof data !== "object" || data === null) return;
    const told = data as Record<string, unknown>;
    const values = Object.fromEntries(FIELDS.map((field) => [field, Number(told[field] ?? Number.NaN)]));
    const uptime = Number(told["uptime_s"] ?? Number.NaN);
    this.#newest.set(event.key ?? "", { time, values: values as Record<Field, number>, uptime });
    for (const [node, { time: heard }] of this.#newest) if (heard < time - GONE) this.#newest.delete(node);
    const nodes = [...this.#newest.values()].map((node) => node.values);
    this.series.push(
      Math.floor(time / 1000) * 1000,
      FIELDS.map((field) =>
        SUMMED.includes(field)
          ? nodes.reduce((sum, node) => sum + node[field], 0)
          : Math.max(...nodes.map((node) => node[field])),
      ),
    );
  }
}
