// The page's one connection and session, and what the screens may know of them.

import { ApiError } from "./api";
import { Client, type Status, type WebSocketLike } from "./client";
import { type Session, signIn, signOut, takeCode, whoami } from "./session";
import { isOutdated } from "./version";

declare global {
  interface Window {
    /** Opened by the script in index.html, before this module was there. */
    firstSocket?: WebSocketLike;
  }
}

/** Whether somebody is signed in: `expired` keeps the page and asks again in place. */
export type Entry = "unknown" | "in" | "out" | "expired";

class Hub {
  readonly client: Client;
  /** Changes with every change of the connection. */
  status = $state.raw<Status>() as Status;
  entry = $state<Entry>("unknown");
  session = $state.raw<Session>();
  /** Why signing in by link failed. */
  refusal = $state<string>();
  /** The hub serves a newer page than this one. */
  isOutdated = $state(false);
  /** Nothing is painted from the stream while true; it is all kept and shown afterwards. */
  paused = $state(false);

  constructor() {
    const socket = window.firstSocket;
    delete window.firstSocket;
    this.client = new Client({
      url: `${location.origin.replace("http", "ws")}/ws/real-time`,
      name: "page",
      ...(socket ? { firstSocket: socket } : {}),
    });
    this.status = this.client.status;
    this.client.on("status", (status) => {
      const connected = status.state === "connected" && this.status.state !== "connected";
      this.status = status;
      if (connected) void this.#recognise();
    });
    this.client.on("signin", () => {
      this.entry = this.entry === "in" ? "expired" : this.entry === "expired" ? "expired" : "out";
    });
    addEventListener("online", () => this.client.wake());
    addEventListener("pageshow", () => this.client.wake());
    document.addEventListener("visibilitychange", () => this.client.setHidden(document.hidden));
    // A link pasted into the open page changes only the hash, which loads nothing by itself.
    addEventListener("hashchange", () => void this.#enter());
    void this.#enter();
  }

  /** Signs in with a token or an API key; throws what the hub answered. */
  async signIn(token: string): Promise<void> {
    this.#entered(await signIn({ token }));
  }

  /** Ends the session, and takes everything shown away with it. */
  async signOut(): Promise<void> {
    await signOut();
    this.leave();
  }

  /** Starts over: a fresh page is the surest way to hold nothing of the last user. */
  leave(): void {
    location.assign("/");
  }

  async #enter(): Promise<void> {
    const code = takeCode();
    if (code === undefined) {
      this.client.start();
      return;
    }
    try {
      this.#entered(await signIn({ code }));
    } catch (error) {
      this.refusal =
        error instanceof ApiError && error.status !== 401
          ? error.message
          : "This sign-in link does not work (any more): a link works once, for 15 minutes.";
      // An earlier session may still be good.
      this.client.start();
    }
  }

  #entered(session: Session): void {
    const before = this.session;
    if (before !== undefined && before.user !== session.user) {
      // Somebody else: nothing that the first one saw may stay.
      this.leave();
      return;
    }
    this.session = session;
    this.refusal = undefined;
    this.entry = "in";
    this.client.start();
    this.client.wake();
  }

  /** The socket was let in; whose session is it, and what may it do? */
  async #recognise(): Promise<void> {
    const isFirst = this.session === undefined;
    try {
      this.session = await whoami();
      this.entry = "in";
      if (!isFirst) this.isOutdated = await isOutdated();
    } catch (error) {
      // Gone again in this moment: the connection's own states tell of it.
      if (!(error instanceof ApiError)) throw error;
    }
  }
}

export const hub = new Hub();
