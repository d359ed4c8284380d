// One socket from its opening to its end: the first message, questions and answers, signs of life.

import { Alarm } from "./alarm.ts";
import { byteLength, CONNECTING, type Environment, OPEN, type WebSocketLike } from "./environment.ts";
import {
  type Ack,
  type ClientMessage,
  type Connected,
  type ErrorMessage,
  read,
  type Refreshed,
  type ServerMessage,
  type Subscribed,
  type Unsubscribed,
} from "./messages.ts";
import { Outbox, type Sending } from "./outbox.ts";

/** From the first step to `connected`. */
const CONNECT_MS = 10_000;
/** How long after a ping should have come the connection counts as dead. */
const SILENCE_MS = 10_000;
/** How often is looked whether something was heard. */
const LOOK_MS = 5_000;
/** Time for the answer to a question asked only to see whether anybody is there. */
const PROBE_MS = 3_000;
/** The longest delay the hub is believed. */
const LONGEST_DELAY_MS = 300_000;
/** The hub's limits, until it tells its own. */
const FRAME_BYTES = 65_536;
const MESSAGES_PER_SECOND = 50;
/** No subscription can have this name, because it is no pattern. */
const NO_SUBSCRIPTION = "?";

export interface Owner {
  /** `connect` is sent; commands may follow. */
  opened(): void;
  connected(message: Connected): void;
  /** Anything that answers no question. */
  received(message: ServerMessage): void;
  /** Nothing comes after this. */
  ended(end: End): void;
}

/** How a connection ended. */
export interface End {
  /** Who ended it: the other side, or this one because it heard nothing or something broken. */
  by: "close" | "silence" | "broken";
  /** The close code, of a close. */
  code?: number;
  message: string;
  /** Whether the hub had said `connected`. */
  connected: boolean;
  /** When the hub wants the client back, by the forward clock. */
  backAt?: number;
}

/** What a question is answered with; "lost" if the connection ended before, "unsent" if also before it was sent. */
export type Answer = Subscribed | Unsubscribed | Refreshed | Ack | ErrorMessage | "lost" | "unsent";
type Answered = (answer: Answer) => void;

interface Question {
  answered: Answered;
  sentAt?: number;
}

export class Connection {
  /** The last time from a question to its answer that the hub gives without reading or writing its log. */
  latencyMs: number | undefined;
  /** How far the hub's clock is ahead of this machine's. */
  clockSkewMs: number | undefined;

  readonly #environment: Environment;
  readonly #socket: WebSocketLike;
  readonly #owner: Owner;
  readonly #hello: { token?: string; name?: string };
  readonly #outbox: Outbox;
  readonly #questions = new Map<number, Question>();
  readonly #look: Alarm;
  readonly #leave: Alarm;
  #lastId = 0;
  #frameBytes = FRAME_BYTES;
  #connected = false;
  #over = false;
  #began = 0;
  #heard = { now: 0, wall: 0 };
  /** The longest silence that is no death. */
  #patience = 0;
  #probedAt: number | undefined;
  #backAt: number | undefined;

  constructor(
    environment: Environment,
    socket: WebSocketLike,
    hello: { token?: string; name?: string },
    owner: Owner,
  ) {
    this.#environment = environment;
    this.#socket = socket;
    this.#hello = hello;
    this.#owner = owner;
    this.#outbox = new Outbox(environment, pace(MESSAGES_PER_SECOND));
    this.#look = new Alarm(environment, () => this.#lookForLife());
    this.#leave = new Alarm(environment, () =>
      this.#end({ by: "close", message: "the hub said that it is going away" }),
    );
  }

  /** Listens; says `connect` at once if the socket is already open. */
  begin(): void {
    const socket = this.#socket;
    socket.onopen = () => this.#open();
    socket.onmessage = (event: { data: unknown }) => this.#receive(event.data);
    socket.onerror = () => {}; // the close that follows says what there is to know
    socket.onclose = (event: { code: number; reason: string }) =>
      this.#end({ by: "close", code: event.code, message: event.reason });
    this.#began = this.#environment.now();
    this.#look.set(this.#began + CONNECT_MS);
    if (socket.readyState === OPEN) this.#open();
    else if (socket.readyState !== CONNECTING) this.#end({ by: "close", message: "the socket was closed" });
  }

  /** Asks; if the connection ends before the answer, that is told instead. */
  ask(message: ClientMessage, answered: Answered): Sending {
    const id = ++this.#lastId;
    const text = JSON.stringify({ ...message, id });
    const question: Question = { answered };
    this.#questions.set(id, question);
    const sending = this.#outbox.add(() => {
      const bytes = byteLength(text);
      if (bytes > this.#frameBytes) {
        // The hub would end the connection.
        this.#questions.delete(id);
        const why = `the message has ${bytes} bytes, the hub takes ${this.#frameBytes}`;
        answered({ type: "error", id, code: "limit_exceeded", message: why, retryable: false });
        return;
      }
      if (this.#send(text)) question.sentAt = this.#environment.now();
    });
    return { cancel: () => sending.cancel() && this.#questions.delete(id) };
  }

  /** Finds out soon whether anybody is there: the hub answers whatever it is asked. */
  probe(): void {
    if (!this.#connected || this.#probedAt !== undefined) return;
    this.#probedAt = this.#environment.now();
    this.ask({ type: "unsubscribe", sub: NO_SUBSCRIPTION }, () => {});
    this.#look.set(this.#probedAt + PROBE_MS);
  }

  /** How long ago the last frame came, or the attempt began. */
  get silentMs(): number {
    return this.#environment.now() - Math.max(this.#heard.now, this.#began);
  }

  /** Ends it from this side; the owner is told nothing. */
  drop(code = 1000): void {
    if (this.#over) return;
    this.#over = true;
    this.#look.clear();
    this.#leave.clear();
    this.#outbox.clear();
    const socket = this.#socket;
    socket.onopen = socket.onmessage = socket.onclose = null;
    // Kept: a socket that is closed before it was open says so by an error.
    socket.onerror = () => {};
    socket.close(code);
    const questions = [...this.#questions.values()];
    this.#questions.clear();
    for (const { answered, sentAt } of questions) answered(sentAt === undefined ? "unsent" : "lost");
  }

  /** A socket whose close is under way takes nothing more: false. When it has closed, the question is told as unsent. */
  #send(text: string): boolean {
    if (this.#socket.readyState !== OPEN) return false;
    this.#socket.send(text);
    return true;
  }

  #open(): void {
    const id = ++this.#lastId;
    this.#began = this.#environment.now();
    this.#outbox.urgent(() => this.#send(JSON.stringify({ type: "connect", id, ...this.#hello })));
    this.#owner.opened();
  }

  #receive(frame: unknown): void {
    if (this.#over) return;
    this.#heard = { now: this.#environment.now(), wall: this.#environment.wall() };
    this.#probedAt = undefined;
    let message: ServerMessage | undefined;
    try {
      message = read(frame);
    } catch (error) {
      // Something may be lost: what was not handed on comes again on the next connection.
      this.#end({ by: "broken", message: (error as Error).message });
      return;
    }
    if (!message) return;
    switch (message.type) {
      case "connected":
        if (!this.#connected) this.#welcome(message);
        return;
      case "ping":
        this.#outbox.urgent(() => this.#send('{"type":"pong"}'));
        this.#compareClocks(message.time);
        break;
      case "reconnect":
        this.#backAt = this.#heard.now + Math.min(message.after_ms, LONGEST_DELAY_MS);
        this.#leave.set(this.#backAt);
        return;
      case "subscribed":
      case "unsubscribed":
      case "refreshed":
      case "ack":
      case "error": {
        const question = message.id === undefined ? undefined : this.#questions.get(message.id);
        if (message.id === undefined || !question) break;
        this.#questions.delete(message.id);
        // Answered at once; the others wait for the log or for a check of the token.
        const isQuick = message.type === "unsubscribed" || (message.type === "error" && !message.retryable);
        if (isQuick) this.latencyMs = this.#heard.now - (question.sentAt ?? this.#heard.now);
        question.answered(message);
        return;
      }
    }
    this.#owner.received(message);
  }

  #welcome(message: Connected): void {
    this.#connected = true;
    this.latencyMs = this.#heard.now - this.#began;
    this.#compareClocks(message.time);
    this.#patience = message.ping * 1000 + SILENCE_MS;
    this.#look.set(this.#heard.now + LOOK_MS);
    const { frame, messages_per_second: rate } = message.limits;
    if (frame > 0) this.#frameBytes = frame;
    this.#owner.connected(message);
    if (rate > 0 && !this.#over) this.#outbox.rate = pace(rate);
  }

  #compareClocks(time: string): void {
    const said = Date.parse(time) + (this.latencyMs ?? 0) / 2;
    if (Number.isFinite(said)) this.clockSkewMs = said - this.#heard.wall;
  }

  #lookForLife(): void {
    const now = this.#environment.now();
    if (!this.#connected) {
      this.#end({ by: "silence", message: "the hub did not answer" });
      return;
    }
    const probed = this.#probedAt !== undefined && now - this.#probedAt >= PROBE_MS;
    if (probed || now - this.#heard.now >= this.#patience) {
      this.#end({ by: "silence", message: "the hub has fallen silent" });
      return;
    }
    // The forward clock may stand still while a machine sleeps. Whether it slept or its clock was only set,
    // an answer tells.
    if (this.#environment.wall() - this.#heard.wall >= this.#patience) this.probe();
    if (this.#probedAt === undefined) this.#look.set(now + LOOK_MS);
  }

  #end(how: Pick<End, "by" | "code" | "message">): void {
    if (this.#over) return;
    const end: End = { ...how, connected: this.#connected };
    if (this.#backAt !== undefined) end.backAt = this.#backAt;
    this.drop(how.by === "broken" ? 4400 : 1000);
    this.#owner.ended(end);
  }
}

/** Some room for messages that are held up on the way and arrive together. */
function pace(messagesPerSecond: number): number {
  return Math.max(1, Math.floor(messagesPerSecond * 0.8));
}
