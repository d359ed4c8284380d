// What an end of a connection means for the next one.

import type { End } from "./connection.ts";

export type Verdict =
  /** Never again without somebody's doing. */
  | "refused"
  /** With other credentials. */
  | "credentials"
  /** At once. */
  | "at-once"
  /** After a while. */
  | "later";

/** The close codes of docs/protocol.md. */
export function verdict({ by, code, connected }: End): Verdict {
  if (by === "silence" && connected) return "at-once";
  switch (code) {
    case 4400:
    case 4403:
    case 4406:
      return "refused";
    case 4401:
      return "credentials";
    case 4440:
      // Expired before they were ever taken: what is given is no good.
      return connected ? "at-once" : "credentials";
    default:
      return "later";
  }
}
