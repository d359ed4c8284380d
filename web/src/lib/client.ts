// The client for pulsehub: one connection for as long as it is wanted; every event once, in order, or an
// explicit gap. Knows nothing of a page; client/README.md beside package.json shows it at work.

export { Client, type ClientOptions } from "./client/client.js";
export type { Gap, Subscription, SubscriptionHandlers, SubscriptionRequest } from "./client/cursor.js";
export type { Environment, WebSocketLike } from "./client/environment.js";
export { HubError } from "./client/error.js";
export type { Ack, Connected, HubEvent, Limits, Mode, NewEvent, Replay } from "./client/messages.js";
export type { Position } from "./client/position.js";
export type { ClientEvents, ConnectionState, Reason, Stats, Status } from "./client/status.js";
