// Which token is shown when, and what is done when it is refused.

import { expect, test } from "vitest";

import { HubError } from "./error.ts";
import type { FakeSocket } from "./world.ts";
import { Told, World } from "./world.ts";

const SECOND = 1_000;
const tokenOf = (socket: FakeSocket) => socket.all("connect")[0].token;

/** A client whose tokens are t1, t2, … */
async function withTokens(expires_in?: number) {
  const world = new World();
  let given = 0;
  const client = world.client({ getToken: () => `t${++given}` });
  const signins: string[] = [];
  client.on("signin", ({ message }) => signins.push(message));
  client.start();
  await world.settle();
  world.socket.welcome({ expires_in });
  return { world, client, signins, given: () => given };
}

/** The hub takes whatever token is offered. */
const takeRefreshes = (socket: FakeSocket, expires_in: number) =>
  socket.all("refresh").forEach(({ id }) => socket.say({ type: "refreshed", id, expires_in }));

test("a token is asked for once and shown again, until it is near its end", async () => {
  const { world, given } = await withTokens(100);
  for (const second of [20, 40, 60]) {
    await world.pass(19.5 * SECOND);
    world.socket.shut(1006);
    await world.pass(0.5 * SECOND);
    world.socket.welcome({ expires_in: 100 - second });
  }
  expect(given()).toBe(1);
  expect(world.sockets.map(tokenOf)).toEqual(["t1", "t1", "t1", "t1"]);
  await world.pass(19 * SECOND);
  expect(given()).toBe(1);
  await world.pass(1 * SECOND); // 80 % of its life
  expect(given()).toBe(2);
  expect(world.socket.all("refresh")).toEqual([{ type: "refresh", id: expect.any(Number), token: "t2" }]);
  takeRefreshes(world.socket, 100);
  world.socket.shut(1006);
  await world.pass(SECOND);
  world.socket.open();
  expect(tokenOf(world.socket)).toBe("t2");
});

test("a token that was spent while there was no connection is replaced for the next", async () => {
  const { world } = await withTokens(100);
  const { environment } = world;
  world.socket.say({ type: "reconnect", after_ms: 90_000 });
  world.socket.shut(4429);
  await world.pass(90 * SECOND);
  world.socket.open();
  expect(tokenOf(world.socket)).toBe("t2");
  expect(environment.now()).toBe(90 * SECOND);
});

test("a token that is good for a year is not asked for again and again", async () => {
  const { world, given } = await withTokens(365 * 86_400);
  for (let round = 0; round < 10; round += 1) {
    await world.pass(10 * SECOND);
    world.socket.say({ type: "live", sub: "x", position: "e:1" });
  }
  expect(given()).toBe(1);
  const months = new World();
  let asked = 0;
  const client = months.client({ getToken: () => `t${++asked}` });
  client.start();
  await months.settle();
  months.socket.welcome({ expires_in: 365 * 86_400, ping: 1e9 });
  await months.pass(0);
  const [before, ring] = [asked, 0.8 * 365 * 86_400 * SECOND];
  months.now += ring - 1;
  await months.pass(0);
  expect(asked).toBe(before);
  await months.pass(1);
  expect(asked).toBe(before + 1);
});

test("a token with no life left is not asked for in a busy loop", async () => {
  const { world, given } = await withTokens(0);
  for (let tenth = 0; tenth < 100; tenth += 1) {
    await world.pass(100);
    takeRefreshes(world.socket, 0);
  }
  expect(given()).toBeLessThanOrEqual(21);
});

test("a token that does not expire is never replaced", async () => {
  const { world, given } = await withTokens(undefined);
  for (let round = 0; round < 100; round += 1) {
    await world.pass(10 * SECOND);
    world.socket.say({ type: "live", sub: "x", position: "e:1" });
  }
  expect(given()).toBe(1);
});

test("4440: a new token at once, and every subscription goes on", async () => {
  const { world, client } = await withTokens(100);
  const told = new Told();
  client.subscribe({ topics: ["a"] }, told.handlers);
  world.socket.confirm();
  world.socket.events("a", [4, 7]);
  world.socket.shut(4440, "the token has expired");
  await world.settle();
  expect(world.sockets).toHaveLength(2);
  world.socket.welcome();
  expect(tokenOf(world.socket)).toBe("t2");
  expect(world.socket.all("subscribe")[0]).toMatchObject({ resume: "e:7" });
});

test("4440 again and again is no busy loop", async () => {
  const { world } = await withTokens(1);
  for (let times = 0; times < 50; times += 1) {
    world.socket.shut(4440);
    await world.settle();
    if (world.socket.closed === undefined && world.socket.readyState === 0) world.socket.welcome();
  }
  expect(world.sockets.length).toBeLessThanOrEqual(2);
});

test("4401: one new token, then somebody must sign in", async () => {
  const { world, client, signins, given } = await withTokens(100);
  world.socket.shut(4401, "revoked");
  await world.settle();
  world.socket.open();
  expect(tokenOf(world.socket)).toBe("t2");
  expect(signins).toEqual([]);
  world.socket.shut(4401, "revoked");
  await world.pass(3600 * SECOND);
  expect(client.status).toMatchObject({ state: "disconnected", reason: "signed-out", code: 4401 });
  expect(signins).toEqual(["revoked"]);
  expect(given()).toBe(2);
  expect(world.sockets).toHaveLength(2);
});

test("signed in again, it goes on where it stood", async () => {
  for (const again of ["start", "wake"] as const) {
    const { world, client } = await withTokens(100);
    const told = new Told();
    client.subscribe({ topics: ["a"] }, told.handlers);
    world.socket.confirm();
    world.socket.events("a", [4, 7]);
    world.socket.shut(4401);
    await world.settle();
    world.socket.shut(4401);
    expect(client.status.reason).toBe("signed-out");
    client[again]();
    await world.settle();
    world.socket.welcome();
    expect(client.state).toBe("connected");
    expect(world.socket.all("subscribe")[0]).toMatchObject({ resume: "e:7" });
    world.socket.events("a", [7, 8]);
    expect(told.text).toBe("4 7 8");
  }
});

test("a token that had expired before it was shown is refused like any other", async () => {
  const world = new World();
  const client = world.client({ getToken: () => "old" });
  client.start();
  await world.settle();
  for (let times = 0; times < 2; times += 1) {
    world.socket.open();
    world.socket.shut(4440, "the token has expired");
    await world.settle();
  }
  expect(client.status).toMatchObject({ reason: "signed-out", code: 4440 });
  expect(world.sockets).toHaveLength(2);
});

test("with a cookie alone there is nothing to try again with", async () => {
  const world = new World();
  const client = world.client();
  client.start();
  await world.settle();
  world.socket.open();
  expect(world.socket.sent).toEqual([{ type: "connect", id: 1 }]);
  world.socket.shut(4401);
  await world.pass(60 * SECOND);
  expect(client.status.reason).toBe("signed-out");
  expect(world.sockets).toHaveLength(1);
});

test("a first socket opened before somebody signed in does not sign them out", async () => {
  const { FakeSocket } = await import("./world.ts");
  const world = new World();
  const firstSocket = new FakeSocket();
  firstSocket.open();
  const client = world.client({ firstSocket });
  client.start();
  await world.settle();
  firstSocket.shut(4401);
  await world.settle();
  world.socket.welcome();
  expect(client.state).toBe("connected");
});

test("each connection takes a ticket of its own, and no token", async () => {
  const world = new World();
  let given = 0;
  const client = world.client({ url: "ws://hub/ws?x=1", getTicket: async () => `a b${++given}` });
  client.start();
  await world.settle();
  world.socket.welcome({ expires_in: 10 });
  world.socket.shut(4440);
  await world.settle();
  expect(world.sockets.map(({ url }) => url)).toEqual([
    "ws://hub/ws?x=1&ticket=a%20b1",
    "ws://hub/ws?x=1&ticket=a%20b2",
  ]);
  expect(world.sockets[0]!.all("connect")).toEqual([{ type: "connect", id: 1 }]);
});

test.each([
  ["storage that throws", () => { throw new DOMException("the storage is closed", "SecurityError"); }], // prettier-ignore
  ["a network that is away", () => Promise.reject(new TypeError("failed to fetch"))],
])("%s is tried again, with longer and longer waits", async (_, getToken) => {
  const world = new World();
  let works = false;
  const client = world.client({ getToken: () => (works ? "t" : getToken()) });
  client.start();
  await world.pass(60 * SECOND);
  expect(client.status.reason).toBe("retrying");
  expect(client.status.message).toMatch(/storage|fetch/);
  expect(world.sockets).toHaveLength(0);
  works = true;
  await world.pass(20 * SECOND);
  world.socket.welcome();
  expect(client.state).toBe("connected");
  expect(world.errors).toEqual([]);
});

test("a token that never comes is not waited for for ever", async () => {
  const world = new World();
  const client = world.client({ getToken: () => new Promise(() => {}) });
  client.start();
  await world.pass(30 * SECOND);
  expect(client.status).toMatchObject({ reason: "retrying", message: "no credentials were given in time" });
});

test("who gives the token may say that somebody must sign in", async () => {
  const refuse = () => {
    throw new HubError("unauthorized", "signed out elsewhere");
  };
  for (const getToken of [refuse, () => ""]) {
    const world = new World();
    const client = world.client({ getToken });
    let signins = 0;
    client.on("signin", () => (signins += 1));
    client.start();
    await world.pass(60 * SECOND);
    expect(client.status.reason).toBe("signed-out");
    expect(signins).toBe(1);
  }
});

test("a token that comes after the client was stopped opens nothing", async () => {
  const world = new World();
  let give = (_: string): void => {};
  const client = world.client({ getToken: () => new Promise((resolve) => (give = resolve)) });
  client.start();
  await world.settle();
  client.stop();
  give("late");
  await world.pass(60 * SECOND);
  expect(world.sockets).toHaveLength(0);
  expect(world.timers).toBe(0);
});

test("a refresh that is refused is told, tried again, and the old token holds meanwhile", async () => {
  const { world, client, given } = await withTokens(100);
  const refreshed = client.refresh();
  await world.settle();
  const [{ id }] = world.socket.all("refresh");
  world.socket.say({ type: "error", id, code: "unauthorized", message: "no", retryable: false });
  await expect(refreshed).rejects.toMatchObject({ code: "unauthorized", retryable: false });
  expect(client.state).toBe("connected");
  expect(given()).toBe(2);
});

test("a refresh with somebody else's token takes another connection", async () => {
  const { world, client } = await withTokens(100);
  const refreshed = client.refresh();
  await world.settle();
  const [{ id }] = world.socket.all("refresh");
  world.socket.say({ type: "error", id, code: "forbidden", message: "somebody else's", retryable: false });
  await refreshed;
  await world.settle();
  world.socket.welcome();
  expect(tokenOf(world.socket)).toBe("t2");
  expect(world.sockets[0]!.closed).toBe(1000);
});

test("without a token to send, refreshing takes another connection, or fails with it", async () => {
  for (const code of [undefined, 4401, 1006]) {
    const world = new World();
    const client = world.client();
    client.start();
    await world.settle();
    world.socket.welcome();
    const refreshed = client.refresh().then(
      () => "done",
      (error: HubError) => error.code,
    );
    await world.settle();
    expect(world.sockets).toHaveLength(2);
    if (code === undefined) world.socket.welcome();
    else world.socket.shut(code);
    expect(await refreshed).toBe({ 4401: "unauthorized", 1006: "not_connected" }[code ?? 0] ?? "done");
  }
});
