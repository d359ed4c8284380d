// The messages of the subprotocol hub.v1, as docs/protocol.md gives them, read strictly at the edge.

import { isPosition, type Position } from "./position.ts";

export const SUBPROTOCOL = "hub.v1";

/** An event as the hub hands it on. */
export interface HubEvent {
  offset: number;
  topic: string;
  id: string;
  source: string;
  type?: string;
  time: string;
  key?: string;
  data: unknown;
}

/** An event to be published; what is left out the hub fills in. */
export interface NewEvent {
  topic: string;
  id?: string;
  source?: string;
  type?: string;
  time?: string;
  key?: string;
  data?: unknown;
}

/** What is given of the past before the live events: so many, since then, or the newest of each key. */
export type Replay = { last: number } | { since: string } | { latest: true };

export type Mode = "all" | "latest";

export interface Limits {
  frame: number;
  subscriptions: number;
  patterns: number;
  replay: number;
  batch: number;
  event: number;
  messages_per_second: number;
}

export interface Connected {
  type: "connected";
  id: number;
  conn: string;
  user: string;
  expires_in?: number;
  ping: number;
  head: Position;
  time: string;
  limits: Limits;
}
export interface Subscribed {
  type: "subscribed";
  id: number;
  sub: string;
  position: Position;
  head: Position;
  recovered: boolean;
}
export interface Unsubscribed {
  type: "unsubscribed";
  id?: number;
  sub: string;
  code?: string;
}
export interface Refreshed {
  type: "refreshed";
  id: number;
  expires_in?: number;
}
export interface Ack {
  type: "ack";
  id: number;
  position: Position;
  accepted: number;
  duplicates: number;
  /** Parts of the events that could not be kept, though the events were: how many of each kind, and why. */
  dropped?: { reasons: string[]; sample?: number };
}
export interface Events {
  type: "events";
  sub: string;
  position: Position;
  skipped?: number;
  events: HubEvent[];
}
export interface Live {
  type: "live";
  sub: string;
  position: Position;
}
export interface GapMessage {
  type: "gap";
  sub: string;
  from: Position;
  to: Position;
  reason: string;
  position: Position;
}
export interface Ping {
  type: "ping";
  time: string;
  head: Position;
  caught_up: string[];
  stale: boolean;
}
export interface Reconnect {
  type: "reconnect";
  after_ms: number;
}
export interface ErrorMessage {
  type: "error";
  id?: number;
  code: string;
  message: string;
  retryable: boolean;
}

export type ServerMessage =
  | Connected
  | Subscribed
  | Unsubscribed
  | Refreshed
  | Ack
  | Events
  | Live
  | GapMessage
  | Ping
  | Reconnect
  | ErrorMessage;

export type ClientMessage =
  | { type: "connect"; token?: string; name?: string }
  | {
      type: "subscribe";
      sub: string;
      topics: readonly string[];
      mode?: Mode;
      max_hz?: number;
      replay?: Replay;
      resume?: Position;
    }
  | { type: "unsubscribe"; sub: string }
  | { type: "refresh"; token: string }
  | { type: "publish"; events: NewEvent[] };

/** A frame that is not what the hub may say: something was lost or changed on the way. */
export class BrokenFrame extends Error {
  override readonly name = "BrokenFrame";
}

/** Reads a frame; nothing if it is a message of a later hub, which is to be passed over. */
export function read(frame: unknown): ServerMessage | undefined {
  if (typeof frame !== "string") throw new BrokenFrame("the hub sent a frame that is not text");
  let message: unknown;
  try {
    message = JSON.parse(frame);
  } catch {
    throw new BrokenFrame("the hub sent a frame that is not JSON");
  }
  if (!isObject(message) || typeof message["type"] !== "string") {
    throw new BrokenFrame("the hub sent a frame that is no object with a type");
  }
  const type = message["type"];
  if (!Object.hasOwn(FIELDS, type)) return undefined;
  for (const [name, fits] of Object.entries(FIELDS[type as ServerMessage["type"]])) {
    if (!fits(message[name])) throw new BrokenFrame(`the hub sent \`${type}\` with a wrong \`${name}\``);
  }
  return message as unknown as ServerMessage;
}

type Check = (value: unknown) => boolean;

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const isText: Check = (value) => typeof value === "string";
const isFlag: Check = (value) => typeof value === "boolean";
const isCount: Check = (value) => Number.isFinite(value) && (value as number) >= 0;
const isTexts: Check = (value) => Array.isArray(value) && value.every(isText);
const isEvents: Check = (value) => Array.isArray(value) && value.every(isEvent);
const isEvent: Check = (value) => isObject(value) && isCount(value["offset"]) && isText(value["topic"]);
const orNone =
  (fits: Check): Check =>
  (value) =>
    value === undefined || fits(value);

/** The fields that are used. Others are left alone, so that a later hub may add some. */
const FIELDS: { [T in ServerMessage["type"]]: Record<string, Check> } = {
  connected: {
    id: isCount,
    conn: isText,
    user: isText,
    expires_in: orNone(isCount),
    ping: isCount,
    head: isPosition,
    time: isText,
    limits: isObject,
  },
  subscribed: { id: isCount, sub: isText, position: isPosition, head: isPosition, recovered: isFlag },
  unsubscribed: { id: orNone(isCount), sub: isText, code: orNone(isText) },
  refreshed: { id: isCount, expires_in: orNone(isCount) },
  ack: {
    id: isCount,
    position: isPosition,
    accepted: isCount,
    duplicates: isCount,
    dropped: orNone(isObject),
  },
  events: { sub: isText, position: isPosition, skipped: orNone(isCount), events: isEvents },
  live: { sub: isText, position: isPosition },
  gap: { sub: isText, from: isPosition, to: isPosition, reason: isText, position: isPosition },
  ping: { time: isText, head: isPosition, caught_up: isTexts, stale: isFlag },
  reconnect: { after_ms: isCount },
  error: { id: orNone(isCount), code: isText, message: isText, retryable: isFlag },
};
