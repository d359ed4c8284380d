// Why something asked of the hub was not done.

import type { NewEvent } from "./messages.ts";

export class HubError extends Error {
  override readonly name = "HubError";

  /**
   * @param code the hub's own code, or one of the client's: `not_connected` (nothing was sent) and
   * `outcome_unknown` (sent, and the connection was lost before the answer).
   * @param retryable whether the same may succeed later.
   * @param events what was to be published, with the ids under which a retry stores nothing twice.
   */
  constructor(
    readonly code: string,
    message: string,
    readonly retryable = false,
    readonly events?: NewEvent[],
  ) {
    super(message);
  }
}
