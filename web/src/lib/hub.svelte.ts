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

/** Before the hub is asked again whose session it is. */
const ASK_AGAIN = 2_000;

/** Whether somebody is signed in: `expired` keeps the page and asks again in place. */
export type Entry = "unknown" | "in" | "out" | "expired";

/** What the hub calls those without credentials. */
const ANONYMOUS = "anonymous";

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

  /** Tells the browser's other tabs that nobody is signed in any more. */
  readonly #tabs = new BroadcastChannel("pulsehub.signed-out");

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
    this.#tabs.addEventListener("message", () => this.leave());
    // A link pasted into the open page changes only the hash, which loads nothing by itself.
    addEventListener("hashchange", () => void this.#enter());
    void this.#enter();
  }

  /** Signs in with a token or an API key; throws what the hub answered. */
  async signIn(token: string): Promise<void> {
    this.#entered(await signIn({ token }));
  }

  /** Whether nobody is signed in, and the hub shows what everybody may see (`[auth.anonymous]`). */
  get isAnonymous(): boolean {
    return this.session?.user === ANONYMOUS;
  }

  /** Somebody who was let in without credentials wants to sign in. */
  askToSignIn(): void {
    // A connection that comes back would take the form away.
    this.client.stop();
    this.entry = "out";
  }

  /** Ends the session, and takes everything shown away with it, in every tab. */
  async signOut(): Promise<void> {
    await signOut();
    this.#tabs.postMessage("");
    this.leave();
  }

  /** Starts over: a fresh page is the surest way to hold nothing of the last user. */
  leave(): void {
    // The browser may keep this page to go back to: it must not show anything then either.
    this.entry = "out";
    this.session = undefined;
    location.assign("/");
  }

  /** Somebody does not want to wait, or believes that what was refused is allowed now. */
  retry(): void {
    this.client.start();
    this.client.wake();
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
    if (!this.#welcome(session)) return;
    this.refusal = undefined;
    this.client.start();
    this.client.wake();
  }

  /** False if it is somebody else than before: nothing that the first one saw may stay. */
  #welcome(session: Session): boolean {
    if (this.session !== undefined && this.session.user !== session.user) {
      this.leave();
      return false;
    }
    this.session = session;
    this.entry = "in";
    return true;
  }

  /** The socket was let in; whose session is it, and what may it do? */
  async #recognise(): Promise<void> {
    const isFirst = this.session === undefined;
    try {
      // Another tab may have signed somebody else in.
      if (this.#welcome(await whoami()) && !isFirst) this.isOutdated = await isOutdated();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      // Where the connection is gone again, the next one asks.
      const wait = error.retryAfter === undefined ? ASK_AGAIN : error.retryAfter * 1000;
      if (this.status.state === "connected") setTimeout(() => void this.#recognise(), wait);
    }
  }
}

export const hub = new Hub();
