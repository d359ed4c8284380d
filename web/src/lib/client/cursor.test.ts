// What a subscription is told: each event once, in order, or a gap; live and resumed.

import { expect, test } from "vitest";

import { Told, World } from "./world.ts";

const SECOND = 1_000;
const TIME = "2026-11-20T12:00:00Z";

async function subscribed(request: Partial<Parameters<ReturnType<World["client"]>["subscribe"]>[0]> = {}) {
  const world = new World();
  const client = world.client();
  client.start();
  await world.settle();
  world.socket.welcome();
  const told = new Told();
  const subscription = client.subscribe({ topics: ["a"], ...request }, told.handlers);
  world.socket.confirm();
  /** The connection is lost and another stands; nothing is confirmed yet. */
  const reconnect = async () => {
    world.socket.shut(1006);
    await world.pass(20 * SECOND);
    world.socket.open();
    return world.socket.all("subscribe")[0];
  };
  return { world, client, told, subscription, reconnect };
}

test("nothing at or below the position is handed on twice", async () => {
  const { world, told, subscription, reconnect } = await subscribed();
  world.socket.events("a", [1, 2, 5]);
  expect(await reconnect()).toMatchObject({ sub: "a", topics: ["a"], resume: "e:5" });
  world.socket.confirm();
  world.socket.events("a", [2, 5]);
  world.socket.events("a", [5, 6]);
  world.socket.events("a", [6, 9]);
  world.socket.events("a", [1]);
  expect(told.text).toBe("1 2 5 6 9");
  expect(subscription.position).toBe("e:9");
});

test("the position moves after the events were handed on, and also when that fails", async () => {
  const { world, client } = await subscribed();
  const seen: (string | undefined)[] = [];
  const other = client.subscribe(
    { topics: ["b"] },
    {
      events: () => {
        seen.push(other.position);
        throw new Error("a mistake of the page");
      },
    },
  );
  world.socket.confirm();
  world.socket.events("b", [1, 2]);
  world.socket.events("b", [3]);
  expect(seen).toEqual(["e:0", "e:2"]);
  expect(other.position).toBe("e:3");
  expect(world.errors.map(String)).toEqual(["Error: a mistake of the page", "Error: a mistake of the page"]);
  expect(client.state).toBe("connected");
  expect(client.stats.eventsReceived).toBe(3);
});

test("lost before the hub confirmed it, the same is asked for again", async () => {
  const world = new World();
  const client = world.client();
  const told = new Told();
  client.subscribe({ topics: ["a"], replay: { last: 50 } }, told.handlers);
  client.start();
  await world.settle();
  world.socket.open();
  const [first] = world.socket.all("subscribe");
  world.socket.shut(1006);
  await world.pass(SECOND);
  world.socket.open();
  const { id: _, ...again } = world.socket.all("subscribe")[0];
  expect(again).toEqual({ type: "subscribe", sub: "a", topics: ["a"], replay: { last: 50 } });
  expect(first).toMatchObject(again);
});

test("lost after that, it goes on from where it began, and nothing between is missed", async () => {
  for (const replay of [undefined, { last: 50 }, { since: "5m" }]) {
    const world = new World();
    const client = world.client();
    client.subscribe({ topics: ["a"], replay }, new Told().handlers);
    client.start();
    await world.settle();
    world.socket.welcome({ head: "e:77" });
    world.socket.shut(1006);
    await world.pass(SECOND);
    world.socket.open();
    expect(world.socket.all("subscribe")[0]).toMatchObject({ resume: "e:77" });
    expect(world.socket.all("subscribe")[0]).not.toHaveProperty("replay");
  }
});

test("the newest values are asked for again until the first have come", async () => {
  const { world, told, reconnect } = await subscribed({ mode: "latest", maxHz: 5, replay: { latest: true } });
  const asked = { mode: "latest", max_hz: 5, replay: { latest: true } };
  expect(world.socket.all("subscribe")[0]).toMatchObject(asked);
  world.socket.confirm("e:900"); // they come after this position, though they are older
  expect(await reconnect()).toMatchObject(asked);
  world.socket.confirm("e:900");
  world.socket.events("a", [3, 8], { skipped: 2 });
  expect(told.text).toBe("3 8");
  expect(told.batches).toEqual([{ position: "e:8", skipped: 2, replayed: true }]);
  expect(await reconnect()).toMatchObject({ mode: "latest", max_hz: 5, resume: "e:8" });
});

test("what comes before live is replayed, after each reconnect anew", async () => {
  const { world, told, reconnect } = await subscribed({ replay: { last: 2 } });
  const live = (position: string) => world.socket.say({ type: "live", sub: "a", position });
  world.socket.events("a", [1, 2]);
  live("e:4");
  world.socket.events("a", [5]);
  expect(await reconnect()).toMatchObject({ resume: "e:5" });
  world.socket.confirm();
  world.socket.events("a", [6]);
  live("e:6");
  world.socket.events("a", [7]);
  expect(told.text).toBe("1 2 live:e:4 5 6 live:e:6 7");
  expect(told.batches.map(({ replayed }) => replayed)).toEqual([true, false, true, false]);
});

test("a ping moves those that have caught up, and no others", async () => {
  const { world, client, subscription, reconnect } = await subscribed();
  const behind = client.subscribe({ topics: ["b"] }, new Told().handlers);
  world.socket.confirm();
  world.socket.say({ type: "ping", time: TIME, head: "e:500", caught_up: ["a", "gone"], stale: false });
  expect(world.socket.sent.at(-1)).toEqual({ type: "pong" });
  expect([subscription.position, behind.position]).toEqual(["e:500", "e:0"]);
  expect(client.stats.lag).toBe(500);
  world.socket.say({ type: "ping", time: TIME, head: "e:501", caught_up: ["a", "b"], stale: false });
  expect(client.stats.lag).toBe(0);
  expect(await reconnect()).toMatchObject({ resume: "e:501" });
});

test("a socket whose close is under way is not written to, and the next one is asked", async () => {
  const { world, client, reconnect } = await subscribed();
  const before = world.socket.sent.length;
  world.socket.readyState = 2;
  client.subscribe({ topics: ["b"] }, new Told().handlers);
  expect(world.socket.sent.length).toBe(before);
  await reconnect();
  expect(world.socket.all("subscribe").map(({ sub }) => sub)).toEqual(["a", "b"]);
});

test("a gap is told, and the subscription goes on behind it", async () => {
  const { world, client, told, subscription, reconnect } = await subscribed();
  const gaps: unknown[] = [];
  client.on("gap", (gap) => gaps.push(gap));
  world.socket.events("a", [1]);
  const gap = { type: "gap", sub: "a", from: "e:2", to: "e:90", reason: "retention", position: "e:90" };
  world.socket.say(gap);
  world.socket.events("a", [91]);
  expect(told.text).toBe("1 gap:e:2-e:90:retention 91");
  expect(gaps).toEqual([
    {
      ...{ sub: "a", topics: ["a"], from: "e:2", to: "e:90" },
      reason: "retention",
      position: "e:90",
      missed: 89,
    },
  ]);
  expect(subscription.position).toBe("e:91");
  expect(await reconnect()).toMatchObject({ resume: "e:91" });
});

test("another history is told as a gap, and its offsets begin anew", async () => {
  const { world, client, told, reconnect } = await subscribed();
  const missed: unknown[] = [];
  client.on("gap", (gap) => missed.push(gap.missed));
  world.socket.events("a", [100]);
  const { id } = await reconnect();
  world.socket.say({ type: "subscribed", id, sub: "a", position: "f:3", head: "f:3", recovered: false });
  // Lost before the gap was told: it is not forgotten.
  expect(await reconnect()).toMatchObject({ resume: "e:100" });
  world.socket.confirm();
  world.socket.say({ type: "gap", sub: "a", from: "e:101", to: "f:3", reason: "epoch", position: "f:3" });
  world.socket.events("a", [4, 5], { epoch: "f" });
  world.socket.events("a", [5, 6], { epoch: "f" });
  expect(told.text).toBe("100 gap:e:101-f:3:epoch 4 5 6");
  expect(missed).toEqual([undefined]);
});

test("events of another history are not mistaken for old ones, even if no gap was told", async () => {
  const { world, told, subscription } = await subscribed();
  world.socket.events("a", [100]);
  world.socket.events("a", [1, 2], { epoch: "f" });
  expect(told.text).toBe("100 1 2");
  expect(subscription.position).toBe("f:2");
});

test("a position of earlier is resumed from, and goes before a replay", async () => {
  const { world, told } = await subscribed({ resume: "e:40", replay: { last: 10 } });
  expect(world.socket.all("subscribe")[0]).toMatchObject({ resume: "e:40" });
  expect(world.socket.all("subscribe")[0]).not.toHaveProperty("replay");
  world.socket.events("a", [40, 41]);
  expect(told.text).toBe("41");
});

test("a refused subscription is told and not tried again; the others stay", async () => {
  const { world, client, told, reconnect } = await subscribed();
  const refused = new Told();
  const denied: unknown[] = [];
  client.on("denied", (event) => denied.push(event));
  const handle = client.subscribe({ topics: ["private.*"] }, refused.handlers);
  const { id } = world.socket.all("subscribe").at(-1);
  const message = '"private.*": no grant to subscribe to private.*';
  world.socket.say({ type: "error", id, code: "forbidden", message, retryable: false });
  expect(refused.text).toBe("denied:forbidden");
  expect(denied).toEqual([{ sub: "private.*", topics: ["private.*"], code: "forbidden", message }]);
  expect(await reconnect()).toMatchObject({ sub: "a" });
  expect(world.socket.all("subscribe")).toHaveLength(1);
  world.socket.confirm();
  world.socket.events("a", [1]);
  expect(told.text).toBe("1");
  handle.unsubscribe();
  expect(world.socket.all("unsubscribe")).toHaveLength(0);
});

test("a subscription the hub ends is told and not tried again", async () => {
  const { world, told, reconnect } = await subscribed();
  world.socket.say({ type: "unsubscribed", sub: "a", code: "forbidden" });
  world.socket.events("a", [1]);
  expect(told.text).toBe("denied:forbidden");
  expect(await reconnect()).toBeUndefined();
});

test("what the hub cannot do now is asked again on the same connection", async () => {
  const { world, client } = await subscribed();
  const told = new Told();
  client.subscribe({ topics: ["b"] }, told.handlers);
  const { id } = world.socket.all("subscribe").at(-1);
  world.socket.say({ type: "error", id, code: "unavailable", message: "busy", retryable: true });
  await world.pass(500);
  expect(world.socket.all("subscribe").map(({ sub }) => sub)).toEqual(["a", "b", "b"]);
  const again = world.socket.all("subscribe").at(-1);
  world.socket.say({
    type: "subscribed",
    id: again.id,
    sub: "b",
    position: "e:1",
    head: "e:1",
    recovered: true,
  });
  world.socket.events("b", [2]);
  expect(told.text).toBe("2");
});

test("unsubscribed and subscribed again, nothing of the first comes to the second", async () => {
  const { world, client, told, subscription } = await subscribed();
  subscription.unsubscribe();
  subscription.unsubscribe();
  const second = new Told();
  client.subscribe({ topics: ["a"] }, second.handlers);
  expect(world.socket.all("unsubscribe").map(({ sub }) => sub)).toEqual(["a"]);
  world.socket.events("a", [1]); // still of the first
  world.socket.say({ type: "live", sub: "a", position: "e:1" });
  world.socket.confirm();
  world.socket.events("a", [2]);
  expect(told.text).toBe("");
  expect(second.text).toBe("2");
});

test("unsubscribed while there is no connection, it is not asked for again", async () => {
  const { world, client, subscription, reconnect } = await subscribed();
  world.socket.shut(1006);
  subscription.unsubscribe();
  client.subscribe({ topics: ["b"] }, new Told().handlers);
  await world.pass(500);
  world.socket.open();
  expect(world.socket.all("subscribe").map(({ sub }) => sub)).toEqual(["b"]);
  expect(world.socket.all("unsubscribe")).toEqual([]);
  await reconnect();
});

test("unsubscribing from within a handler is heard at once", async () => {
  const { world, client } = await subscribed();
  const got: number[] = [];
  const handle = client.subscribe(
    { topics: ["b"] },
    {
      events: ({ events }) => {
        got.push(...events.map(({ offset }) => offset));
        handle.unsubscribe();
      },
    },
  );
  world.socket.confirm();
  world.socket.events("b", [1, 2]);
  world.socket.events("b", [3]);
  expect(got).toEqual([1, 2]);
});

test("stopping from within a handler is heard at once", async () => {
  const { world, client, told } = await subscribed();
  client.subscribe({ topics: ["b"] }, { events: () => client.stop() });
  world.socket.confirm();
  const { socket } = world;
  socket.events("b", [1]);
  socket.events("a", [2]);
  expect(told.text).toBe("");
  expect(client.status.reason).toBe("stopped");
});

test("the same topics twice are two subscriptions, named so that the hub can share its work", async () => {
  const { client } = await subscribed();
  const sub = (...topics: string[]) => client.subscribe({ topics }, new Told().handlers).sub;
  expect([sub("a"), sub("a"), sub("b", "c.**")]).toEqual(["a~2", "a~3", "b,c.**"]);
  const names = [sub("x".repeat(200)), sub("käse"), sub()];
  expect(new Set(names).size).toBe(3);
  for (const name of names) expect(name).toMatch(/^[!-~]{1,64}$/);
});

test("a frame cut in two: the connection is given up, and nothing is lost or doubled", async () => {
  const { world, client, told } = await subscribed();
  world.socket.events("a", [1, 2]);
  world.socket.frame('{"type":"events","sub":"a","position":"e:4","eve');
  expect(client.status).toMatchObject({ reason: "retrying", message: expect.stringContaining("JSON") });
  expect(world.socket.closed).toBe(4400);
  world.socket.events("a", [5]); // what still comes on the old socket
  await world.pass(500);
  world.socket.welcome();
  expect(world.socket.all("subscribe")[0]).toMatchObject({ resume: "e:2" });
  world.socket.events("a", [3, 4, 5]);
  expect(told.text).toBe("1 2 3 4 5");
});

test("a message of a later hub changes nothing", async () => {
  const { world, client, told } = await subscribed();
  world.socket.say({ type: "weather", sky: "blue" });
  world.socket.say({ type: "error", code: "unknown_type", message: "what?", retryable: false });
  world.socket.say({
    type: "connected",
    id: 9,
    conn: "x",
    user: "eve",
    ping: 1,
    head: "e:1",
    time: TIME,
    limits: {},
  });
  world.socket.events("a", [1]);
  expect(told.text).toBe("1");
  expect(client.status.user).toBe("ada");
  expect(world.errors.map(String)).toEqual(["HubError: what?"]);
});

test("a large event comes whole", async () => {
  const { world, client } = await subscribed();
  const data = "é€😀\n".repeat(10_240);
  let got: unknown;
  client.subscribe({ topics: ["b"] }, { events: ({ events }) => (got = events[0]?.data) });
  world.socket.confirm();
  const event = { offset: 1, topic: "b", id: "1", source: "s", time: TIME, data };
  world.socket.say({ type: "events", sub: "b", position: "e:1", events: [event] });
  expect(got).toBe(data);
});

test("a million events leave nothing behind", { timeout: 60_000 }, async () => {
  const { world, client, subscription } = await subscribed();
  let [count, last, inOrder] = [0, 0, true];
  client.subscribe(
    { topics: ["b"] },
    {
      events: ({ events }) => {
        for (const { offset } of events) {
          inOrder &&= offset > last;
          last = offset;
          count += 1;
        }
      },
    },
  );
  world.socket.confirm();
  const timers = world.timers;
  const rest = '"topic":"b","id":"x","source":"s","time":"2026-11-20T12:00:00Z","data":{"n":1}}';
  for (let first = 0; first < 1_000_000; first += 500) {
    const events = Array.from({ length: 500 }, (_, index) => `{"offset":${first + index + 1},${rest}`);
    world.socket.frame(`{"type":"events","sub":"b","position":"e:${first + 500}","events":[${events}]}`);
  }
  expect([count, last, inOrder]).toEqual([1_000_000, 1_000_000, true]);
  expect(client.stats).toMatchObject({ eventsReceived: 1_000_000, head: "e:1000000" });
  expect(subscription.position).toBe("e:0");
  expect(world.timers).toBe(timers);
});
