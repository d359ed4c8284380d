// What whoever makes a client says about it.

import type { Environment, WebSocketLike } from "./environment.ts";

export interface ClientOptions {
  /** Such as `wss://hub.example/ws/real-time`. */
  url: string;
  /** What the client calls itself, shown among the hub's connections. */
  name?: string | undefined;
  /**
   * Asked only when there is no token or it is near its end. A `HubError` thrown with the code `unauthorized`,
   * or an empty token, says that somebody must sign in; any other error, that it may work later.
   */
  getToken?: (() => string | Promise<string>) | undefined;
  /** A single-use ticket for each connection, instead of a token. */
  getTicket?: (() => string | Promise<string>) | undefined;
  /** A socket already opened with the subprotocol `hub.v1`, taken for the first attempt if it is still good. */
  firstSocket?: WebSocketLike | undefined;
  environment?: Partial<Environment> | undefined;
}
