// What can be known of a connection from outside.

import type { Gap } from "./cursor.ts";
import type { Connected } from "./messages.ts";
import type { Position } from "./position.ts";

export type ConnectionState = "connecting" | "connected" | "disconnected";

/** Why there is no connection: waiting for the next attempt, or not trying. */
export type Reason = "retrying" | "hidden" | "signed-out" | "refused" | "stopped";

export interface Status {
  readonly state: ConnectionState;
  /** Of `disconnected`. */
  readonly reason?: Reason | undefined;
  /** Of `retrying`: when the next attempt comes, by the clock of `now()`. */
  readonly retryAt?: number | undefined;
  /** The close code of the last connection, until the next one stands. */
  readonly code?: number | undefined;
  /** What went wrong, for people, until the next connection stands. */
  readonly message?: string | undefined;
  /** Whose credentials were shown last. */
  readonly user?: string | undefined;
  /** The connection's name. */
  readonly conn?: string | undefined;
  /** Whether the hub itself has lost touch with where its events come from. */
  readonly stale: boolean;
  /** What the hub said when it was last connected. */
  readonly welcome?: Connected | undefined;
}

export interface Stats {
  /** The last time from a question to its answer. */
  readonly latencyMs?: number | undefined;
  /** How far the hub's clock is ahead of this machine's. */
  readonly clockSkewMs?: number | undefined;
  /** The newest position heard of. */
  readonly head?: Position | undefined;
  /** Offsets from the subscription furthest behind to the head, at the last ping. */
  readonly lag?: number | undefined;
  /** Connections after the first. */
  readonly reconnects: number;
  /** Events handed on. */
  readonly eventsReceived: number;
  /** Since when there is a connection, by the clock of `now()`. */
  readonly connectedAt?: number | undefined;
}

export interface ClientEvents {
  status: Status;
  gap: Gap & { sub: string; topics: readonly string[] };
  stale: { stale: boolean };
  denied: { sub: string; topics: readonly string[]; code: string; message: string };
  /** The credentials were refused twice, the second time as fresh as they come. */
  signin: { message: string };
}
