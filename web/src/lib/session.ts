// Who is signed in: begun by a link's code, a token or a key, kept in a cookie this page cannot read.

import { get, request } from "./api";

/** As `/api/v1/session` answers. */
export interface Session {
  user: string;
  admin: boolean;
  /** Seconds; null where it does not end. */
  expires_in: number | null;
  /** Patterns the user may subscribe to. */
  subscribe: string[];
  /** Patterns the user may publish to. */
  publish: string[];
  /** Whether what there is to see is made up; left out where it is not. */
  demo?: boolean;
}

/** Takes the code of a sign-in link out of the address before anything else sees it. */
export function takeCode(): string | undefined {
  const code = new URLSearchParams(location.hash.slice(1)).get("code") ?? undefined;
  if (code !== undefined) history.replaceState(null, "", location.pathname + location.search);
  return code;
}

export async function signIn(credential: { code: string } | { token: string }): Promise<Session> {
  return (await request("POST", "/api/v1/session", credential)).json() as Promise<Session>;
}

export function whoami(): Promise<Session> {
  return get("/api/v1/session");
}

export async function signOut(): Promise<void> {
  await request("DELETE", "/api/v1/session");
}

/**
 * What a feed of everything asks for: all granted patterns, but the hub's own topics only if there is nothing else,
 * because their every second would drown the rest.
 */
export function everything(session: Session): string[] {
  const own = session.subscribe.filter((pattern) => pattern !== "hub" && !pattern.startsWith("hub."));
  const patterns = own.length > 0 ? own : session.subscribe;
  return patterns.includes("**") ? ["**"] : patterns;
}
