// The connection as its user sees it: made again and again, with every subscription going on where it stood.

import { Alarm } from "./alarm.ts";
import { Backoff } from "./backoff.ts";
import { type Answer, Connection, type End } from "./connection.ts";
import { Credentials } from "./credentials.ts";
import type { Subscription, SubscriptionHandlers, SubscriptionRequest } from "./cursor.ts";
import { CONNECTING, type Environment, environment, OPEN, type WebSocketLike } from "./environment.ts";
import { HubError } from "./error.ts";
import { Listeners } from "./listeners.ts";
import { type Ack, type Connected, type NewEvent, type ServerMessage, SUBPROTOCOL } from "./messages.ts";
import type { ClientOptions } from "./options.ts";
import { later, type Position } from "./position.ts";
import { notConnected, Publisher } from "./publisher.ts";
import { Subscriptions } from "./subscriptions.ts";
import type { ClientEvents, ConnectionState, Reason, Stats, Status } from "./status.ts";
import { verdict } from "./verdict.ts";

/** A connection that held so long was good: the next one is tried soon again. */
const STABLE_MS = 10_000;
/** A hidden page gives its connection back after this. */
const HIDDEN_MS = 300_000;
/** What is younger than this needs no waking. */
const FRESH_MS = 1_000;
/** Before a refresh that failed is tried again; meanwhile the old token holds. */
const REFRESH_AGAIN_MS = 5_000;

export class Client {
  readonly #name: string | undefined;
  readonly #environment: Environment;
  readonly #credentials: Credentials;
  readonly #backoff: Backoff;
  readonly #listeners: Listeners<ClientEvents>;
  readonly #publisher: Publisher;
  readonly #subscriptions: Subscriptions;
  readonly #retry: Alarm;
  readonly #renew: Alarm;
  readonly #hide: Alarm;
  #firstSocket: WebSocketLike | undefined;
  #status: Status = { state: "disconnected", reason: "stopped", stale: false };
  #connection: Connection | undefined;
  /** Which attempt is the newest; what an older one still learns is void. */
  #attempt = 0;
  #attemptAt = 0;
  /** Whether the credentials were asked for anew since the hub last took some. */
  #isFresh = false;
  /** Whether the socket was opened by somebody else, perhaps before somebody signed in. */
  #isAdopted = false;
  /** Whether there was a hurry since a connection was last stable: the second time in a row waits. */
  #hurried = false;
  #connections = 0;
  #connectedAt: number | undefined;
  #head: Position | undefined;
  #latencyMs: number | undefined;
  #clockSkewMs: number | undefined;

  constructor(options: ClientOptions) {
    const world = environment(options.environment);
    this.#environment = world;
    this.#name = options.name || undefined;
    this.#firstSocket = options.firstSocket;
    this.#credentials = new Credentials(world, options);
    this.#backoff = new Backoff(() => world.random());
    this.#listeners = new Listeners((error) => world.reportError(error));
    this.#publisher = new Publisher(() => world.newId());
    this.#retry = new Alarm(world, () => this.#try());
    this.#renew = new Alarm(world, () => void this.#renewToken());
    this.#hide = new Alarm(world, () => this.#goHidden());
    this.#subscriptions = new Subscriptions(
      this.#listeners,
      new Backoff(() => world.random()),
      (ring) => new Alarm(world, ring),
      () => world.now(),
    );
  }

  get state(): ConnectionState {
    return this.#status.state;
  }

  get status(): Status {
    return this.#status;
  }

  get stats(): Stats {
    return {
      latencyMs: this.#connection?.latencyMs ?? this.#latencyMs,
      clockSkewMs: this.#connection?.clockSkewMs ?? this.#clockSkewMs,
      head: this.#head,
      lag: this.#subscriptions.lag,
      reconnects: Math.max(0, this.#connections - 1),
      eventsReceived: this.#subscriptions.eventsReceived,
      connectedAt: this.#connectedAt,
    };
  }

  /** Connects, and stays connected. */
  start(): void {
    const { state, reason } = this.#status;
    if (state === "disconnected" && reason !== "retrying") this.#tryAfresh();
  }

  /** Disconnects. Subscriptions keep their places, for another `start`. */
  stop(): void {
    this.#hide.clear();
    this.#adopt()?.close();
    this.#rest("stopped");
  }

  /** The network or the page is back, or somebody does not want to wait: tries at once. */
  wake(): void {
    switch (this.#status.reason ?? this.#status.state) {
      case "connected":
        if ((this.#connection?.silentMs ?? 0) > FRESH_MS) this.#connection?.probe();
        break;
      case "connecting":
        // It may have begun before the network was back.
        if (this.#environment.now() - this.#attemptAt > FRESH_MS) this.#tryAfresh();
        break;
      case "retrying":
      case "signed-out":
        this.#tryAfresh();
        break;
    }
  }

  /** A page hidden for five minutes gives its connection back, until it is shown again. */
  setHidden(hidden: boolean): void {
    if (hidden) {
      if (this.#hide.at === undefined) this.#hide.set(this.#environment.now() + HIDDEN_MS);
      return;
    }
    this.#hide.clear();
    if (this.#status.reason === "hidden") this.#tryAfresh();
    else this.wake();
  }

  /** From now on, or from the past on; also without a connection, for the next one. */
  subscribe(request: SubscriptionRequest, on: SubscriptionHandlers): Subscription {
    return this.#subscriptions.add(request, on);
  }

  /**
   * All or none. Rejects with a `HubError`; its `events` have the ids under which publishing them again stores
   * nothing twice, also when the connection was lost before the answer.
   */
  publish(events: NewEvent[]): Promise<Ack> {
    if (this.state === "disconnected") return Promise.reject(notConnected(events));
    return this.#publisher.publish(events, this.state === "connected" ? this.#connection : undefined);
  }

  /** Shows the hub new credentials: a token on the same connection, all else on another. */
  async refresh(): Promise<void> {
    const { state, reason } = this.#status;
    if (state === "connected" && this.#credentials.canRefresh) return this.#refreshToken();
    this.#credentials.forget();
    // The next connection, whenever it is wanted, takes new ones.
    if (reason === "stopped" || reason === "hidden" || reason === "refused") return;
    await new Promise<void>((resolve, reject) => {
      const stop = this.on("status", ({ state, code, message = "there is no connection to the hub" }) => {
        if (state === "connecting") return;
        stop();
        if (state === "connected") resolve();
        else reject(new HubError(code === 4401 ? "unauthorized" : "not_connected", message, code !== 4401));
      });
      this.#tryAfresh();
    });
  }

  /** Gives back how to stop listening. */
  on<K extends keyof ClientEvents>(kind: K, listener: (event: ClientEvents[K]) => void): () => void {
    return this.#listeners.on(kind, listener);
  }

  #tryAfresh(): void {
    this.#backoff.reset();
    this.#hurried = false;
    this.#isFresh = false;
    this.#try();
  }

  #try(): void {
    this.#detach();
    const attempt = ++this.#attempt;
    this.#attemptAt = this.#environment.now();
    const { code, message } = this.#status;
    this.#say({ state: "connecting", code, message });
    void this.#connect(attempt);
  }

  async #connect(attempt: number): Promise<void> {
    let way: { url: string; token?: string };
    try {
      way = await this.#credentials.forConnection();
    } catch (error) {
      if (attempt === this.#attempt) this.#withoutCredentials(error);
      return;
    }
    if (attempt !== this.#attempt) return;
    let socket = this.#adopt();
    this.#isAdopted = socket !== undefined;
    try {
      socket ??= new this.#environment.WebSocket(way.url, [SUBPROTOCOL]);
    } catch (error) {
      this.#rest("refused", undefined, messageOf(error)); // no address of a socket
      return;
    }
    const hello = {
      ...(way.token === undefined ? {} : { token: way.token }),
      ...(this.#name === undefined ? {} : { name: this.#name }),
    };
    const connection = new Connection(this.#environment, socket, hello, {
      opened: () => this.#subscriptions.opened(connection),
      connected: (message) => this.#connected(connection, message),
      received: (message) => this.#received(message),
      ended: (end) => this.#ended(end),
    });
    this.#connection = connection;
    connection.begin();
  }

  #adopt(): WebSocketLike | undefined {
    const socket = this.#firstSocket;
    this.#firstSocket = undefined;
    return socket && [CONNECTING, OPEN].includes(socket.readyState) ? socket : undefined;
  }

  #withoutCredentials(error: unknown): void {
    this.#detach();
    if (error instanceof HubError && error.code === "unauthorized") this.#signOut(undefined, error.message);
    else this.#wait(this.#backoff.next(), undefined, messageOf(error));
  }

  #connected(connection: Connection, message: Connected): void {
    this.#connections += 1;
    this.#connectedAt = this.#environment.now();
    this.#isFresh = false;
    this.#credentials.lives(message.expires_in);
    this.#renew.set(this.#credentials.renewAt);
    this.#sawHead(message.head);
    this.#say({ state: "connected", welcome: message, user: message.user, conn: message.conn });
    // Unless somebody who heard that stopped it.
    if (connection === this.#connection) this.#publisher.connected(connection);
  }

  #received(message: ServerMessage): void {
    if (message.type === "error") {
      // It answers nothing that was asked: a mistake of the client's own.
      this.#environment.reportError(new HubError(message.code, message.message, message.retryable));
      return;
    }
    if (message.type === "ping") this.#sawHead(message.head);
    else if ("position" in message) this.#sawHead(message.position);
    this.#subscriptions.received(message);
    if (message.type !== "ping" || message.stale === this.#status.stale) return;
    this.#say({ ...this.#status, stale: message.stale });
    this.#listeners.tell("stale", { stale: message.stale });
  }

  #ended(end: End): void {
    const { connectedAt } = this.#detach();
    if (connectedAt !== undefined && this.#environment.now() - connectedAt >= STABLE_MS) {
      this.#backoff.reset();
      this.#hurried = false;
    }
    const { code, backAt } = end;
    const message = end.message || "the connection was lost";
    if (backAt !== undefined) {
      const wait = Math.max(0, backAt - this.#environment.now());
      // A node that leaves told everybody another moment. Whatever else it was may happen again.
      const leaves = code === undefined || code === 1012;
      this.#wait(leaves ? wait : Math.max(wait, this.#backoff.next()), code, message);
      return;
    }
    switch (verdict(end)) {
      case "refused":
        this.#rest("refused", code, message);
        return;
      case "credentials":
        if (this.#isFresh || (!this.#credentials.areGiven && !this.#isAdopted)) {
          this.#signOut(code, message);
          return;
        }
        this.#isFresh = true;
        this.#credentials.forget();
        this.#hurry(code, message);
        return;
      case "at-once":
        if (code === 4440) this.#credentials.forget();
        this.#hurry(code, message);
        return;
      case "later":
        this.#wait(this.#backoff.next(), code, message);
    }
  }

  #hurry(code: number | undefined, message: string): void {
    if (this.#hurried) {
      this.#wait(this.#backoff.next(), code, message);
      return;
    }
    this.#hurried = true;
    this.#try();
  }

  #wait(ms: number, code: number | undefined, message: string): void {
    const retryAt = this.#environment.now() + ms;
    this.#retry.set(retryAt);
    this.#say({ state: "disconnected", reason: "retrying", retryAt, code, message });
  }

  #signOut(code: number | undefined, message: string): void {
    this.#credentials.forget();
    this.#rest("signed-out", code, message);
    this.#listeners.tell("signin", { message });
  }

  #goHidden(): void {
    const { state, reason } = this.#status;
    if (state !== "disconnected" || reason === "retrying") this.#rest("hidden");
  }

  /** Without a next attempt. */
  #rest(reason: Reason, code?: number, message?: string): void {
    this.#detach();
    this.#attempt += 1; // what is under way comes too late
    this.#say({ state: "disconnected", reason, code, message });
  }

  /** Lets go of the connection and of everything that goes with it. */
  #detach(): { connectedAt: number | undefined } {
    const [connection, connectedAt] = [this.#connection, this.#connectedAt];
    this.#retry.clear();
    this.#renew.clear();
    this.#connection = undefined;
    this.#connectedAt = undefined;
    connection?.drop();
    this.#subscriptions.lost();
    this.#latencyMs = connection?.latencyMs ?? this.#latencyMs;
    this.#clockSkewMs = connection?.clockSkewMs ?? this.#clockSkewMs;
    return { connectedAt };
  }

  #say(status: Omit<Status, "stale"> & { stale?: boolean }): void {
    const { user, welcome } = this.#status;
    this.#status = { user, welcome, stale: false, ...status };
    const said = this.#status;
    if (said.state === "disconnected") this.#publisher.disconnected();
    this.#listeners.tell("status", said);
  }

  #sawHead(position: Position): void {
    this.#head = later(this.#head, position);
  }

  async #renewToken(): Promise<void> {
    try {
      await this.#refreshToken();
    } catch {
      // What is wrong shows when the old token ends, if not before then it was put right.
      if (this.state === "connected") this.#renew.set(this.#environment.now() + REFRESH_AGAIN_MS);
    }
  }

  async #refreshToken(): Promise<void> {
    const connection = this.#connection;
    const token = await this.#credentials.renew();
    if (!connection || connection !== this.#connection) return; // the next one takes it from the start
    const answer = await new Promise<Answer>((resolve) =>
      connection.ask({ type: "refresh", token }, resolve),
    );
    if (answer === "lost" || answer === "unsent") return;
    if (answer.type === "error") {
      if (answer.code === "forbidden") return this.#tryAfresh(); // somebody else's: a connection of its own
      if (!answer.retryable) this.#credentials.forget();
      throw new HubError(answer.code, answer.message, answer.retryable);
    }
    if (answer.type !== "refreshed") return;
    this.#credentials.lives(answer.expires_in);
    this.#renew.set(this.#credentials.renewAt);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
