// When the client comes back, and when it does not.

import { expect, test } from "vitest";

import type { Client } from "./client.ts";
import type { Status } from "./status.ts";
import { FakeSocket, Told, World } from "./world.ts";

const SECOND = 1_000;

async function connected(options: Parameters<World["client"]>[0] = {}) {
  const world = new World();
  const client = world.client(options);
  client.start();
  await world.settle();
  world.socket.welcome();
  expect(client.state).toBe("connected");
  return { world, client };
}

/** How long until the client opens another socket. */
async function untilNext(world: World): Promise<number> {
  const [before, began] = [world.sockets.length, world.now];
  await world.settle();
  while (world.sockets.length === before && world.now - began < 100 * SECOND) await world.pass(50);
  return world.now - began;
}

const retryIn = (client: Client, world: World) => (client.status.retryAt ?? NaN) - world.now;

test("the waits double from half a second to twenty, for ever, and are drawn by lot", async () => {
  const world = new World();
  const client = world.client();
  client.start();
  const waits: number[] = [];
  for (let attempt = 0; attempt < 9; attempt += 1) {
    await world.settle();
    world.socket.shut(1006);
    expect(client.status).toMatchObject({ state: "disconnected", reason: "retrying", code: 1006 });
    waits.push(retryIn(client, world));
    await world.pass(waits.at(-1)!);
    expect(client.state).toBe("connecting");
  }
  expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000, 20_000]);
  world.random = 0.25;
  world.socket.shut(1006);
  expect(retryIn(client, world)).toBe(5_000);
});

test("after ten good seconds the waits begin anew, not before", async () => {
  const { world, client } = await connected();
  for (const [held, wait] of [
    [9 * SECOND, 500],
    [9 * SECOND, 1000],
    [10 * SECOND, 500],
  ] as const) {
    await world.pass(held);
    world.socket.shut(1006);
    expect(retryIn(client, world)).toBe(wait);
    await world.pass(wait);
    world.socket.welcome();
  }
});

test("the delay the hub tells is kept to the millisecond", async () => {
  const { world, client } = await connected();
  world.socket.say({ type: "reconnect", after_ms: 1830 });
  await world.pass(30);
  world.socket.shut(1012, "the hub is restarting");
  expect(retryIn(client, world)).toBe(1800);
  await world.pass(1799);
  expect(world.sockets).toHaveLength(1);
  await world.pass(1);
  expect(world.sockets).toHaveLength(2);
});

test("a hub that says it goes away and then does not close is left in time", async () => {
  const { world } = await connected();
  world.socket.say({ type: "reconnect", after_ms: 1830 });
  await world.pass(1830);
  expect(world.sockets).toHaveLength(2);
  expect(world.sockets[0]!.closed).toBe(1000);
});

test("a delay of years is not believed", async () => {
  const { world, client } = await connected();
  world.socket.say({ type: "reconnect", after_ms: 1e15 });
  world.socket.shut(1012);
  expect(retryIn(client, world)).toBe(300 * SECOND);
});

test.each([4400, 4403, 4406])("%i stops the client until it is started again", async (code) => {
  const { world, client } = await connected();
  world.socket.shut(code, "no");
  expect(client.status).toMatchObject({ state: "disconnected", reason: "refused", code, message: "no" });
  client.wake();
  client.setHidden(false);
  await world.pass(60 * SECOND);
  expect(world.sockets).toHaveLength(1);
  client.start();
  await world.settle();
  expect(world.sockets).toHaveLength(2);
});

test.each([1000, 1001, 1006, 1011, 1012, 1013, 4408, 4429, 4441, 4999])(
  "after %i it backs off",
  async (code) => {
    const { world, client } = await connected();
    world.socket.shut(code);
    expect(client.status).toMatchObject({ reason: "retrying", code });
    expect(retryIn(client, world)).toBe(500);
  },
);

test("the wait is what `reconnect` said, and no number in a reason", async () => {
  const { world, client } = await connected();
  world.socket.say({ type: "reconnect", after_ms: 5000 });
  world.socket.shut(4429, "more than 20000 connections of one user; retry after 90 s");
  expect(retryIn(client, world)).toBe(5 * SECOND);
});

test("who is told again and again to come back waits longer each time", async () => {
  const { world, client } = await connected();
  const waits: number[] = [];
  for (let n = 0; n < 6; n += 1) {
    world.socket.say({ type: "reconnect", after_ms: 2000 });
    world.socket.shut(4429);
    waits.push(retryIn(client, world) / SECOND);
    await world.pass(retryIn(client, world));
    world.socket.welcome();
  }
  expect(waits).toEqual([2, 2, 2, 4, 8, 16]);
});

test("silence for a ping and ten seconds is death, and any frame is life", async () => {
  const { world } = await connected();
  const told = (head: number) =>
    world.sockets[0]!.say({ type: "live", sub: "whatever it is", position: `e:${head}` });
  for (let second = 0; second < 100; second += 20) {
    await world.pass(20 * SECOND);
    told(second);
  }
  expect(world.sockets).toHaveLength(1);
  await world.pass(34 * SECOND);
  expect(world.sockets).toHaveLength(1);
  await world.pass(6 * SECOND);
  expect(world.sockets).toHaveLength(2); // at once, because the connection had held
});

test("a hub that does not answer is given ten seconds", async () => {
  for (const opens of [false, true]) {
    const world = new World();
    const client = world.client();
    client.start();
    await world.settle();
    if (opens) world.socket.open();
    await world.pass(9_999);
    expect(client.state).toBe("connecting");
    await world.pass(1);
    expect(client.status).toMatchObject({ reason: "retrying", message: "the hub did not answer" });
    expect(world.socket.closed).toBe(1000);
  }
});

test("after a sleep it comes back at once", async () => {
  const { world } = await connected();
  await world.pass(20 * SECOND);
  await world.sleep(3600 * SECOND);
  expect(world.sockets).toHaveLength(2);
});

test("also where the forward clock slept too: it asks, and nobody answers", async () => {
  const { world } = await connected();
  await world.pass(20 * SECOND);
  world.socket.say({ type: "live", sub: "x", position: "e:1" });
  await world.sleep(3600 * SECOND, { forward: false });
  expect(await untilNext(world)).toBeLessThanOrEqual(8 * SECOND);
});

test("a clock that is set does no harm: the hub answers, and the connection stays", async () => {
  for (const jump of [3600 * SECOND, -3600 * SECOND, 10 * 365 * 86_400 * SECOND]) {
    const { world, client } = await connected();
    world.wall += jump;
    for (let second = 0; second < 120; second += 1) {
      await world.pass(SECOND);
      const probe = world.socket.all("unsubscribe").at(-1);
      if (probe) {
        const { id } = probe;
        world.socket.say({ type: "error", id, code: "unknown_sub", message: "none", retryable: false });
      }
      const time = "2026-11-20T12:00:00.000Z";
      if (second % 25 === 0)
        world.socket.say({ type: "ping", time, head: "e:0", caught_up: [], stale: false });
    }
    expect(world.sockets).toHaveLength(1);
    expect(client.state).toBe("connected");
    expect(world.socket.all("unsubscribe").length).toBeLessThanOrEqual(1);
  }
});

test("waking tries at once, begins the waits anew, and leaves a good connection alone", async () => {
  const { world, client } = await connected();
  world.socket.shut(1006);
  await world.pass(500);
  world.socket.shut(1006);
  expect(retryIn(client, world)).toBe(1000);
  client.wake();
  await world.settle();
  expect(world.sockets).toHaveLength(3);
  world.socket.shut(1006);
  expect(retryIn(client, world)).toBe(500);
  client.wake();
  await world.settle();
  world.socket.welcome();
  client.wake();
  await world.pass(10);
  expect(world.sockets).toHaveLength(4);
  expect(world.socket.all("unsubscribe")).toHaveLength(0);
});

test("waking a connection that is dead without knowing finds it out soon", async () => {
  const { world, client } = await connected();
  await world.pass(12 * SECOND);
  client.wake();
  expect(await untilNext(world)).toBeLessThanOrEqual(3_100);
});

test("waking replaces an attempt from before the network was back, once", async () => {
  const world = new World();
  const client = world.client();
  client.start();
  await world.pass(3 * SECOND);
  client.wake();
  client.wake();
  await world.settle();
  expect(world.sockets.map(({ closed }) => closed)).toEqual([1000, undefined]);
});

test("a page hidden for five minutes gives the connection back and resumes when shown", async () => {
  const { world, client } = await connected();
  const told = new Told();
  client.subscribe({ topics: ["a"] }, told.handlers);
  world.socket.confirm();
  world.socket.events("a", [1, 2]);
  client.setHidden(true);
  const beat = { type: "ping", time: "2026-11-20T12:00:00Z", head: "e:9", caught_up: ["a"], stale: false };
  for (let second = 0; second < 290; second += 10) {
    await world.pass(10 * SECOND);
    world.socket.say(beat);
  }
  expect(client.state).toBe("connected");
  await world.pass(10 * SECOND);
  expect(client.status).toMatchObject({ state: "disconnected", reason: "hidden" });
  client.wake(); // the network, not the page
  await world.pass(600 * SECOND);
  expect(world.sockets).toHaveLength(1);
  client.setHidden(false);
  await world.settle();
  world.socket.welcome();
  expect(world.socket.all("subscribe")[0]).toMatchObject({ topics: ["a"], resume: "e:9" });
});

test("a page shown again within five minutes keeps its connection", async () => {
  const { world, client } = await connected();
  client.setHidden(true);
  client.setHidden(false);
  for (let second = 0; second < 400; second += 10) {
    await world.pass(10 * SECOND);
    world.socket.say({ type: "live", sub: "x", position: "e:1" });
  }
  expect(world.sockets).toHaveLength(1);
});

test("the socket opened before the client was there is taken, once, if it is still good", async () => {
  for (const opened of [false, true]) {
    const world = new World();
    const firstSocket = new FakeSocket();
    if (opened) firstSocket.open();
    const client = world.client({ firstSocket });
    client.start();
    await world.settle();
    firstSocket.welcome();
    expect(client.state).toBe("connected");
    expect(world.sockets).toHaveLength(0);
    firstSocket.shut(1006);
    await world.pass(500);
    expect(world.sockets).toHaveLength(1);
  }
});

test("a first socket that is closed is left alone", async () => {
  const world = new World();
  const firstSocket = new FakeSocket();
  firstSocket.close();
  world.client({ firstSocket }).start();
  await world.settle();
  expect(world.sockets).toHaveLength(1);
});

test("stopping leaves nothing behind and starting goes on", async () => {
  const { world, client } = await connected();
  const told = new Told();
  client.subscribe({ topics: ["a"] }, told.handlers);
  world.socket.confirm();
  world.socket.events("a", [1, 2]);
  client.stop();
  expect(client.status).toMatchObject({ state: "disconnected", reason: "stopped" });
  expect(world.timers).toBe(0);
  world.sockets[0]!.events("a", [3]);
  client.start();
  await world.settle();
  world.socket.welcome();
  expect(world.socket.all("subscribe")[0]).toMatchObject({ resume: "e:2" });
  expect(told.text).toBe("1 2");
});

test("a listener that stops the client in the middle of an attempt is heard", async () => {
  for (const at of ["connecting", "connected"]) {
    const world = new World();
    const client = world.client();
    client.on("status", ({ state }) => state === at && client.stop());
    client.start();
    await world.settle();
    if (at === "connected") world.socket.welcome();
    await world.pass(60 * SECOND);
    expect(client.status.reason).toBe("stopped");
    expect(world.timers).toBe(0);
  }
});

test("an address that is none is refused, not retried", async () => {
  const world = new World();
  const { environment } = world;
  const client = world.client({
    environment: {
      ...environment,
      WebSocket: class extends FakeSocket {
        constructor() {
          super();
          throw new SyntaxError("no such address");
        }
      },
    },
  });
  client.start();
  await world.settle();
  expect(client.status).toMatchObject({ reason: "refused", message: "no such address" });
});

test("status tells of everything there is to show", async () => {
  const world = new World();
  const client = world.client();
  const said: Status[] = [];
  const stale: boolean[] = [];
  client.on("status", (status) => said.push(status));
  client.on("stale", (event) => stale.push(event.stale));
  client.start();
  await world.settle();
  await world.pass(60);
  world.socket.welcome({ head: "e:5" });
  expect(client.stats).toMatchObject({ latencyMs: 0, head: "e:5", reconnects: 0, eventsReceived: 0 });
  const time = "2026-11-20T12:00:10.000Z";
  world.socket.say({ type: "ping", time, head: "e:7", caught_up: [], stale: true });
  world.socket.shut(1006);
  await world.pass(500);
  world.socket.open();
  await world.pass(30);
  const [{ id }] = world.socket.all("connect");
  const connected = { id, conn: "c2", user: "ada", ping: 25, head: "e:8", time, limits: {} };
  world.socket.say({ type: "connected", ...connected });
  expect(stale).toEqual([true]);
  expect(said.map(({ state, stale }) => [state, stale])).toEqual([
    ["connecting", false],
    ["connected", false],
    ["connected", true],
    ["disconnected", false],
    ["connecting", false],
    ["connected", false],
  ]);
  expect(said[3]).toMatchObject({ user: "ada", code: 1006, message: "the connection was lost" });
  expect(said[3]?.conn).toBeUndefined();
  expect(said[4]).toMatchObject({ state: "connecting", code: 1006 });
  expect(said[5]).toMatchObject({ user: "ada", conn: "c2" });
  expect(said[5]?.code).toBeUndefined();
  expect(client.stats).toMatchObject({ latencyMs: 30, head: "e:8", reconnects: 1, connectedAt: 590 });
  // Half of the latency ago the hub's clock showed the time it told; since then this one went on by that half.
  expect(client.stats.clockSkewMs).toBe(10_000 - 590 + 15);
});
