// The client against a real hub that is killed, restarted, drained, held and cut off.

import { randomInt } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";

import { afterEach, beforeEach, expect, test } from "vitest";
import { WebSocket } from "ws";

import {
  Client,
  type ClientOptions,
  type Gap,
  type HubEvent,
  type SubscriptionRequest,
} from "../src/lib/client";
import { Hub, until } from "./hub.ts";

let hub: Hub;
let clients: Client[] = [];
let publishers: Publisher[] = [];
beforeEach(async () => {
  hub = await Hub.start({ SOCKET_PING: "1s", HTTP_DRAIN: "2s" });
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.stop();
  for (const publisher of publishers.splice(0)) await publisher.stop();
  await hub.stop();
});

/** With short waits, so that a test sees many connections. */
async function open(options: Partial<ClientOptions> = {}): Promise<Client> {
  const token = await hub.token({ sub: "ada", subscribe: ["a.**"], publish: ["a.**"] });
  const client = new Client({
    ...{ url: hub.socketUrl, getToken: () => token, ...options },
    environment: { WebSocket, random: () => Math.random() / 10, ...options.environment },
  });
  clients.push(client);
  client.start();
  return client;
}

const connected = (client: Client) => until(() => client.state === "connected", "the connection");

/** What a subscription was given. */
class Heard {
  readonly events: HubEvent[] = [];
  readonly gaps: Gap[] = [];
  readonly denied: { code: string; message: string }[] = [];
  lives = 0;

  constructor(client: Client, request: Partial<SubscriptionRequest> = {}) {
    client.subscribe(
      { topics: ["a.**"], ...request },
      {
        events: ({ events }) => void this.events.push(...events),
        live: () => void (this.lives += 1),
        gap: (gap) => void this.gaps.push(gap),
        denied: (error) => void this.denied.push(error),
      },
    );
  }

  get numbers(): unknown[] {
    return this.events.map(({ data }) => data);
  }

  /** Everything from 1 up to the last, each once and in order; else where it breaks. */
  isComplete(last: number, fits = (_: number): boolean => true): void {
    const [wanted, numbers] = [upTo(last).filter(fits), this.numbers];
    const at = wanted.findIndex((number, index) => numbers[index] !== number);
    const around = (all: unknown[]) => all.slice(Math.max(0, at - 2), at + 3);
    if (at >= 0) expect(around(numbers), `from ${at}`).toEqual(around(wanted));
    expect(this.events.length).toBe(wanted.length);
    expect(this.gaps).toEqual([]);
  }

  async has(count: number): Promise<void> {
    await until(() => this.events.length >= count, `${count} events, of which came ${this.events.length}`);
  }
}

/** Publishes 1, 2, 3, … in small batches until it is stopped; a batch that fails is sent again. */
class Publisher {
  last = 0;
  #stopped = false;
  readonly #done = this.#run();

  static start(): Publisher {
    const publisher = new Publisher();
    publishers.push(publisher);
    return publisher;
  }

  /** The last number that was published. */
  async stop(): Promise<number> {
    this.#stopped = true;
    await this.#done;
    return this.last;
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const numbers = upTo(20).map((number) => this.last + number);
      try {
        await hub.publish(numbers.map((n) => ({ topic: `a.${n % 3}`, id: `n${n}`, data: n })));
        this.last += numbers.length;
      } catch {
        await new Promise((again) => setTimeout(again, 20)); // the hub is away
      }
    }
  }
}

const upTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1);

test("what was published comes, and what is published goes out", async () => {
  await hub.publish([1, 2, 3].map((data) => ({ topic: "a.x", data })));
  const client = await open({ name: "test" });
  const heard = new Heard(client, { replay: { last: 2 } });
  await until(() => heard.lives === 1, "live");
  const ack = await client.publish([{ topic: "a.y", key: "k", type: "t", data: { n: [1.5, "é"] } }]);
  expect(ack).toMatchObject({ accepted: 1, duplicates: 0 });
  await heard.has(3);
  expect(heard.numbers).toEqual([2, 3, { n: [1.5, "é"] }]);
  expect(heard.events[2]).toMatchObject({ topic: "a.y", source: "ada", key: "k", type: "t" });
  expect(client.status).toMatchObject({ state: "connected", user: "ada", stale: false });
  expect(client.stats.latencyMs).toBeGreaterThanOrEqual(0);
  expect(Math.abs(client.stats.clockSkewMs!)).toBeLessThan(5_000);
  await expect(client.publish([{ topic: "b" }])).rejects.toMatchObject({
    code: "forbidden",
    retryable: false,
  });
});

test("a hub killed again and again: everybody gets everything once, in order", async () => {
  const client = await open();
  const [live, other] = [new Heard(client), new Heard(client, { topics: ["a.1"], replay: { since: "5m" } })];
  await until(() => live.lives === 1 && other.lives === 1, "live");
  const publisher = Publisher.start();
  for (let round = 0; round < 5; round += 1) {
    const before = publisher.last;
    await until(() => publisher.last >= before + 60, "events");
    await hub.kill();
    await hub.restart();
    await connected(client);
  }
  const last = await publisher.stop();
  const isOther = (number: number): boolean => number % 3 === 1;
  await live.has(last);
  live.isComplete(last);
  await other.has(upTo(last).filter(isOther).length);
  other.isComplete(last, isOther);
  expect(client.stats.reconnects).toBeGreaterThanOrEqual(5);
  expect(client.stats.eventsReceived).toBe(live.events.length + other.events.length);
});

test("a line cut in the middle of frames: everything once, in order", async () => {
  const line = await Line.to(hub);
  line.cutsAfter = () => randomInt(1_000, 20_000);
  const client = await open({ url: line.url, environment: { random: () => 0.01 } });
  const heard = new Heard(client);
  await until(() => heard.lives > 0, "live");
  const publisher = Publisher.start();
  await until(() => line.cuts >= 25, "25 cuts");
  const last = await publisher.stop();
  line.cutsAfter = () => Infinity;
  await heard.has(last);
  heard.isComplete(last);
  await line.close();
});

test("a hub that is drained tells when to come back, and nothing is lost", async () => {
  const client = await open();
  const heard = new Heard(client);
  await until(() => heard.lives === 1, "live");
  const publisher = Publisher.start();
  await until(() => publisher.last >= 60, "events");
  const codes: unknown[] = [];
  client.on("status", ({ code, reason }) => reason === "retrying" && codes.push(code));
  await hub.drain();
  await until(() => codes.length > 0, "the goodbye");
  expect(codes[0]).toBe(1012);
  await hub.restart();
  const before = publisher.last;
  await until(() => publisher.last > before, "events after the restart");
  const last = await publisher.stop();
  await heard.has(last);
  heard.isComplete(last);
});

test("a hub that stands still is noticed, and resumed from when it goes on", async () => {
  const client = await open();
  const heard = new Heard(client);
  await until(() => heard.lives === 1, "live");
  await hub.publish({ topic: "a.x", data: 1 });
  await heard.has(1);
  hub.pause();
  try {
    await until(() => client.state !== "connected", "the silence to be noticed");
  } finally {
    hub.resume();
  }
  await hub.publish({ topic: "a.x", data: 2 });
  await heard.has(2);
  expect(heard.numbers).toEqual([1, 2]);
  expect(client.stats.reconnects).toBe(1);
});

test("a reader that cannot keep up gets everything in the end", async () => {
  const line = await Line.to(hub);
  const client = await open({ url: line.url });
  const heard = new Heard(client);
  await until(() => heard.lives === 1, "live");
  line.hold();
  const batch = (first: number) =>
    upTo(500).map((number) => ({ topic: "a.x", data: [first + number, "x".repeat(1000)] }));
  for (let first = 0; first < 10_000; first += 500) await hub.publish(batch(first));
  line.release();
  await heard.has(10_000);
  expect(heard.numbers.map((data) => (data as [number])[0])).toEqual(upTo(10_000));
  await line.close();
});

test("another log behind the same address is told as a gap", async () => {
  const client = await open();
  const heard = new Heard(client);
  await until(() => heard.lives === 1, "live");
  await hub.publish([{ topic: "a.x", data: 1 }, { topic: "a.x", data: 2 }]); // prettier-ignore
  await heard.has(2);
  await hub.kill();
  await hub.restart({ anew: true });
  await until(() => heard.gaps.length > 0, "the gap");
  expect(heard.gaps[0]).toMatchObject({ reason: "epoch" });
  await hub.publish({ topic: "a.x", data: 3 });
  await heard.has(3);
  expect(heard.numbers).toEqual([1, 2, 3]);
  expect(heard.gaps).toHaveLength(1);
});

test("a short-lived token is replaced in time, on the same connection", async () => {
  let given = 0;
  const tokens = await Promise.all(upTo(4).map(() => hub.token({ subscribe: ["a.**"], ttl: "1h" })));
  const getToken = async () => {
    given += 1;
    return given < 4 ? hub.token({ sub: "producer", subscribe: ["a.**"], ttl: "3s" }) : tokens[0]!;
  };
  const client = await open({ getToken });
  const heard = new Heard(client);
  await until(() => given >= 4, "the fourth token");
  await hub.publish({ topic: "a.x", data: 1 });
  await heard.has(1);
  expect(client.stats.reconnects).toBe(0);
});

test("an expired ticket is replaced by another, and nothing is lost", async () => {
  let given = 0;
  const getTicket = async () => {
    given += 1;
    const bearer = await hub.token({ sub: "producer", subscribe: ["a.**"], ttl: given < 3 ? "2s" : "1h" });
    const headers = { Authorization: `Bearer ${bearer}` };
    const answer = await fetch(`${hub.url}/api/v1/tickets`, { method: "POST", headers });
    return ((await answer.json()) as { ticket: string }).ticket;
  };
  const client = await open({ getTicket });
  const heard = new Heard(client);
  await until(() => heard.lives === 1, "live");
  const publisher = Publisher.start();
  await until(() => client.stats.reconnects === 2 && client.state === "connected", "two more tickets");
  const last = await publisher.stop();
  await heard.has(last);
  heard.isComplete(last);
  expect(given).toBeLessThanOrEqual(4);
});

test("credentials that are no good lead to the sign-in, and good ones back", async () => {
  let [token, given] = ["no token at all", 0];
  const client = await open({
    getToken: () => {
      given += 1;
      return token;
    },
  });
  const heard = new Heard(client, { replay: { last: 1 } });
  await until(() => client.status.reason === "signed-out", "the sign-in");
  expect(client.status.code).toBe(4401);
  expect(given).toBe(2);
  token = await hub.token({ subscribe: ["a.**"] });
  await hub.publish({ topic: "a.x", data: 1 });
  client.start();
  await heard.has(1);
});

test("what is not granted is refused by name, and the rest goes on", async () => {
  const client = await open();
  const refused = ["private.*", "no pattern!", "a.**.b"].map(
    (topic) => new Heard(client, { topics: [topic] }),
  );
  const heard = new Heard(client);
  await until(() => heard.lives === 1 && refused.every(({ denied }) => denied.length === 1), "the refusals");
  expect(refused[0]!.denied[0]).toMatchObject({
    code: "forbidden",
    message: expect.stringContaining("private.*"),
  });
  expect(refused[1]!.denied[0]!.code).toBe("bad_message");
  await hub.publish({ topic: "a.x", data: 1 });
  await heard.has(1);
  expect(client.stats.reconnects).toBe(0);
});

test("a grant lost by a refresh ends its subscriptions and no others", async () => {
  let grants = ["a.**", "b.**"];
  const client = await open({ getToken: () => hub.token({ sub: "ada", subscribe: grants }) });
  const [kept, lost] = [new Heard(client), new Heard(client, { topics: ["b.**"] })];
  await until(() => kept.lives === 1 && lost.lives === 1, "live");
  grants = ["a.**"];
  await client.refresh();
  await until(() => lost.denied.length === 1, "the end");
  expect(lost.denied[0]).toMatchObject({ code: "forbidden", message: expect.stringContaining("b.**") });
  await hub.publish([{ topic: "b.x" }, { topic: "a.x" }]);
  await kept.has(1);
  expect(lost.events).toEqual([]);
});

test("a hundred subscriptions at once: as many as the hub takes stand, no connection is lost", async () => {
  const client = await open();
  const all = upTo(100).map((number) => new Heard(client, { topics: [`a.${number}`] }));
  await until(() => all.every(({ lives, denied }) => lives + denied.length === 1), "an answer to each");
  const denied = all.flatMap(({ denied }) => denied.map(({ code }) => code));
  expect(denied).toEqual(Array(36).fill("limit_exceeded"));
  expect(client.stats.reconnects).toBe(0);
});

test("large events come whole, and too large ones do not end the connection", async () => {
  const client = await open();
  const heard = new Heard(client);
  await until(() => heard.lives === 1, "live");
  const data = "é€😀\n".repeat(5_000);
  await hub.publish({ topic: "a.x", data });
  await client.publish([{ topic: "a.x", data: data.slice(0, 10_000) }]);
  const tooLarge = client.publish([{ topic: "a.x", data: data.repeat(2) }]);
  await expect(tooLarge).rejects.toMatchObject({ code: "limit_exceeded" });
  await heard.has(2);
  expect(heard.numbers).toEqual([data, data.slice(0, 10_000)]);
  expect(client.stats.reconnects).toBe(0);
});

// The corpus of tests/odd_payloads.rs.
const ODD = readFileSync(join(import.meta.dirname, "../../tests/odd_payloads.ndjson"), "utf8")
  .trim()
  .split("\n");

test("odd payloads come as they were published, replayed and live, and end no connection", async () => {
  const client = await open();
  const live = new Heard(client);
  await until(() => live.lives === 1, "live");
  await hub.publishText(`[${ODD.map((data) => `{"topic":"a.x","data":${data}}`).join()}]`);
  const replayed = new Heard(client, { replay: { last: ODD.length } });
  const read = ODD.map((data) => JSON.parse(data) as unknown);
  for (const heard of [live, replayed]) {
    await heard.has(ODD.length);
    expect(heard.numbers).toEqual(read);
  }
  // No text can be made of all of them again: JSON has no word for infinity, and a name stands once.
  const again = read.map((data) => JSON.stringify(data));
  await client.publish(read.map((data) => ({ topic: "a.y", data })));
  await live.has(2 * ODD.length);
  expect(live.numbers.slice(ODD.length)).toEqual(again.map((data) => JSON.parse(data) as unknown));
  expect(client.stats.reconnects).toBe(0);
});

test("a batch whose answer was lost can be published again without storing it twice", async () => {
  const client = await open();
  const heard = new Heard(client);
  await until(() => heard.lives === 1, "live");
  for (let round = 0; round < 3; round += 1) {
    const published = client.publish([{ topic: "a.x", data: round }]).catch((error: unknown) => error);
    await hub.kill();
    const outcome = await published;
    await hub.restart();
    await connected(client);
    if (outcome instanceof Error) {
      expect(outcome).toMatchObject({ code: "outcome_unknown", retryable: true });
      await client.publish((outcome as unknown as { events: { topic: string }[] }).events);
    }
  }
  await heard.has(3);
  expect(heard.numbers).toEqual([0, 1, 2]);
});

/** A line between client and hub that can be cut and held. */
class Line {
  cuts = 0;
  /** After how many bytes from the hub a connection is cut. */
  cutsAfter = (): number => Infinity;
  #held = false;
  readonly #pairs = new Set<[Socket, Socket]>();

  private constructor(
    readonly url: string,
    private readonly server: Server,
  ) {}

  static async to(hub: Hub): Promise<Line> {
    const { hostname, port } = new URL(hub.url);
    const server = createServer((near) => line.#join(near, connect(Number(port), hostname)));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const line = new Line(`ws://127.0.0.1:${(server.address() as AddressInfo).port}/ws/real-time`, server);
    return line;
  }

  hold(): void {
    this.#held = true;
    for (const [, far] of this.#pairs) far.pause();
  }

  release(): void {
    this.#held = false;
    for (const [, far] of this.#pairs) far.resume();
  }

  async close(): Promise<void> {
    for (const pair of this.#pairs) for (const socket of pair) socket.destroy();
    this.server.close();
    await once(this.server, "close");
  }

  #join(near: Socket, far: Socket): void {
    const pair: [Socket, Socket] = [near, far];
    this.#pairs.add(pair);
    const end = () => {
      this.#pairs.delete(pair);
      near.destroy();
      far.destroy();
    };
    for (const socket of pair) socket.on("close", end).on("error", end);
    near.pipe(far);
    let left = this.cutsAfter();
    far.on("data", (bytes) => {
      left -= bytes.length;
      near.write(left < 0 ? bytes.subarray(0, Math.max(0, bytes.length + left)) : bytes);
      if (left < 0) {
        this.cuts += 1;
        near.end();
        far.destroy();
      }
    });
    if (this.#held) far.pause();
  }
}
