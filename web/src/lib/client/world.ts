// For tests: a world whose clock stands still until it is told, and sockets of which the test is the other end.

import { Client } from "./client.ts";
import type { ClientOptions } from "./options.ts";
import type { Environment, WebSocketLike } from "./environment.ts";

const START = Date.parse("2026-11-20T12:00:00Z");
const TICK = () => new Promise<void>((done) => setImmediate(done));

export class World {
  now = 0;
  wall = START;
  /** What `random` gives: the longest wait of all unless a test says otherwise. */
  random = 1;
  readonly sockets: FakeSocket[] = [];
  /** What handlers threw. */
  readonly errors: unknown[] = [];
  readonly #timers = new Map<number, { at: number; run: () => void }>();
  #lastTimer = 0;
  #lastId = 0;

  get environment(): Environment {
    const world = this;
    class Socket extends FakeSocket {
      constructor(url: string, protocols: string[]) {
        super(url, protocols);
        world.sockets.push(this);
      }
    }
    return {
      WebSocket: Socket,
      setTimeout: (run, ms) => {
        // As browsers do it: what does not fit into 32 bits is over at once.
        const delay = ms > 2 ** 31 - 1 ? 0 : ms;
        this.#timers.set(++this.#lastTimer, { at: this.now + delay, run });
        return this.#lastTimer;
      },
      clearTimeout: (timer: number) => void this.#timers.delete(timer),
      now: () => this.now,
      wall: () => this.wall,
      random: () => this.random,
      newId: () => `id-${++this.#lastId}`,
      reportError: (error) => void this.errors.push(error),
    };
  }

  client(options: Partial<ClientOptions> = {}): Client {
    return new Client({ url: "ws://hub/ws/real-time", environment: this.environment, ...options });
  }

  /** The newest socket. */
  get socket(): FakeSocket {
    const socket = this.sockets.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }

  get timers(): number {
    return this.#timers.size;
  }

  /** Lets promises settle. */
  async settle(): Promise<void> {
    await TICK();
  }

  /** Time goes by, and timers ring when it is their time. */
  async pass(ms: number): Promise<void> {
    const end = this.now + ms;
    for (;;) {
      await TICK();
      const [id, next] = [...this.#timers].sort(([, a], [, b]) => a.at - b.at)[0] ?? [];
      if (id === undefined || !next || next.at > end) break;
      this.#timers.delete(id);
      this.#to(Math.max(this.now, next.at));
      next.run();
    }
    this.#to(end);
    await TICK();
  }

  /** The machine sleeps: no timer rings meanwhile. The forward clock may stand still, as on some systems. */
  async sleep(ms: number, { forward = true } = {}): Promise<void> {
    if (forward) this.now += ms;
    this.wall += ms;
    await this.pass(0);
  }

  #to(now: number): void {
    this.wall += now - this.now;
    this.now = now;
  }
}

export class FakeSocket implements WebSocketLike {
  readyState = 0;
  onopen: ((event: unknown) => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  onerror: ((event: unknown) => void) | null = null;
  readonly sent: any[] = [];
  /** The code with which the client closed it. */
  closed: number | undefined;

  constructor(
    readonly url = "",
    readonly protocols: string[] = [],
  ) {}

  send(text: string): void {
    if (this.readyState !== 1) throw new Error("not open");
    this.sent.push(JSON.parse(text));
  }

  close(code = 1000): void {
    this.readyState = 3;
    this.closed = code;
  }

  /** What of this type the client has sent. */
  all(type: string): any[] {
    return this.sent.filter((message) => message.type === type);
  }

  open(): void {
    this.readyState = 1;
    this.onopen?.({});
  }

  frame(data: unknown): void {
    this.onmessage?.({ data });
  }

  say(message: object): void {
    this.frame(JSON.stringify(message));
  }

  /** The other side closes. */
  shut(code: number, reason = ""): void {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  /** Opens, lets the client in, and confirms what it subscribes to. */
  welcome({ head = "e:0", ...fields }: Record<string, unknown> = {}): void {
    this.open();
    this.say({
      ...{ type: "connected", id: this.all("connect")[0].id, conn: "c1", user: "ada", ping: 25, head },
      ...{ time: "2026-11-20T12:00:00.000Z", limits: { frame: 65_536, messages_per_second: 50 } },
      ...fields,
    });
    this.confirm(String(head));
  }

  /** Confirms the subscriptions that were not confirmed yet. */
  confirm(head = "e:0"): void {
    for (const { id, sub, resume } of this.all("subscribe").slice(this.#confirmed)) {
      this.#confirmed += 1;
      this.say({ type: "subscribed", id, sub, position: resume ?? head, head, recovered: true });
    }
  }
  #confirmed = 0;

  /** Events at these offsets. */
  events(sub: string, offsets: number[], { epoch = "e", ...fields }: Record<string, unknown> = {}): void {
    const event = (offset: number) => ({
      ...{ offset, topic: sub, id: String(offset), source: "s", time: "2026-11-20T12:00:00Z", data: null },
    });
    const position = `${epoch}:${offsets.at(-1)}`;
    this.say({ type: "events", sub, position, events: offsets.map(event), ...fields });
  }
}

/** What a subscription was told, in order, in short: "1 2 3 live:3 gap:4-6". */
export class Told {
  readonly said: string[] = [];
  /** Where the subscription stood while each batch was handed on. */
  offsets: number[] = [];
  batches: { position: string; skipped: number; replayed: boolean }[] = [];

  readonly handlers = {
    events: (batch: {
      events: { offset: number }[];
      position: string;
      skipped: number;
      replayed: boolean;
    }): void => {
      const { events, ...rest } = batch;
      this.batches.push(rest);
      for (const { offset } of events) {
        this.offsets.push(offset);
        this.said.push(String(offset));
      }
    },
    live: (position: string): void => void this.said.push(`live:${position}`),
    gap: (gap: { from: string; to: string; reason: string }): void =>
      void this.said.push(`gap:${gap.from}-${gap.to}:${gap.reason}`),
    denied: (error: { code: string }): void => void this.said.push(`denied:${error.code}`),
  };

  get text(): string {
    return this.said.join(" ");
  }
}
