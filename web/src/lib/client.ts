// The client for pulsehub: one connection for as long as it is wanted; every event once, in order, or an
// explicit gap. Knows nothing of a page; client/README.md beside package.json shows it at work.

export { Client } from "./client/client.ts";
export type { Gap, Subscription, SubscriptionHandlers, SubscriptionRequest } from "./client/cursor.ts";
export type { Environment, WebSocketLike } from "./client/environment.ts";
export { HubError } from "./client/error.ts";
export type { Ack, Connected, HubEvent, Limits, Mode, NewEvent, Replay } from "./client/messages.ts";
export type { ClientOptions } from "./client/options.ts";
export type { Position } from "./client/position.ts";
export type { ClientEvents, ConnectionState, Reason, Stats, Status } from "./client/status.ts";
