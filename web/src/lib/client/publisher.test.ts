// Publishing, and how much is sent how fast.

import { expect, test } from "vitest";

import type { HubError } from "./error.ts";
import { Told, World } from "./world.ts";

async function connected(fields: Record<string, unknown> = {}) {
  const world = new World();
  const client = world.client();
  client.start();
  await world.settle();
  world.socket.welcome(fields);
  const failed = (promise: Promise<unknown>): Promise<HubError> =>
    promise.then(
      () => Promise.reject(new Error("it did not fail")),
      (error: HubError) => error,
    );
  return { world, client, failed };
}

test("an ack is handed back", async () => {
  const { world, client } = await connected();
  const published = client.publish([{ topic: "a", id: "mine" }, { topic: "b", data: 1 }]); // prettier-ignore
  const [{ id, events }] = world.socket.all("publish");
  expect(events).toEqual([
    { topic: "a", id: "mine" },
    { topic: "b", data: 1, id: "id-1" },
  ]);
  world.socket.say({ type: "ack", id, position: "e:2", accepted: 2, duplicates: 0 });
  expect(await published).toMatchObject({ position: "e:2", accepted: 2, duplicates: 0 });
});

test("a refusal names the hub's code", async () => {
  const { world, client, failed } = await connected();
  const published = failed(client.publish([{ topic: "a" }]));
  const [{ id }] = world.socket.all("publish");
  world.socket.say({
    type: "error",
    id,
    code: "forbidden",
    message: "no grant to publish to a",
    retryable: false,
  });
  expect(await published).toMatchObject({
    code: "forbidden",
    retryable: false,
    message: "no grant to publish to a",
  });
});

test("lost before the answer, the outcome is unknown, and the same ids can be sent again", async () => {
  const { world, client, failed } = await connected();
  const published = failed(client.publish([{ topic: "a" }]));
  const [sent] = world.socket.all("publish");
  world.socket.shut(1006);
  const error = await published;
  expect(error).toMatchObject({ code: "outcome_unknown", retryable: true });
  await world.pass(500);
  world.socket.welcome();
  void client.publish(error.events!);
  expect(world.socket.all("publish")[0].events).toEqual(sent.events);
});

test("without a connection it says so, and while one is being made it waits for it", async () => {
  const { world, client, failed } = await connected();
  world.socket.shut(1006);
  expect(await failed(client.publish([{ topic: "a" }]))).toMatchObject({
    code: "not_connected",
    retryable: true,
  });
  await world.pass(500);
  const waiting = client.publish([{ topic: "b" }]);
  world.socket.welcome();
  const [{ id }] = world.socket.all("publish");
  world.socket.say({ type: "ack", id, position: "e:2", accepted: 1, duplicates: 0 });
  expect((await waiting).accepted).toBe(1);
  world.socket.shut(1006);
  await world.pass(1000);
  const inVain = failed(client.publish([{ topic: "c" }]));
  world.socket.shut(1006);
  expect(await inVain).toMatchObject({ code: "not_connected", retryable: true });
});

test("what the hub would end the connection for is not sent", async () => {
  const { world, client, failed } = await connected({ limits: { frame: 1000, messages_per_second: 50 } });
  // Fewer letters than the limit, more bytes.
  expect(await failed(client.publish([{ topic: "a", data: "€".repeat(400) }]))).toMatchObject({
    code: "limit_exceeded",
    retryable: false,
  });
  const told = new Told();
  client.subscribe({ topics: ["t".repeat(2000)] }, told.handlers);
  expect(told.text).toBe("denied:limit_exceeded");
  expect(world.socket.sent.map(({ type }) => type)).toEqual(["connect"]);
});

test("what is no JSON is refused here", async () => {
  const { client, failed } = await connected();
  expect(await failed(client.publish([{ topic: "a", data: 1n }]))).toMatchObject({ code: "invalid_event" });
});

test("no more than so many batches are under way", async () => {
  const { world, client, failed } = await connected();
  const published = Array.from({ length: 256 }, () => failed(client.publish([{ topic: "a" }])));
  expect(await failed(client.publish([{ topic: "a" }]))).toMatchObject({
    code: "limit_exceeded",
    retryable: true,
  });
  const sent = world.socket.all("publish").length;
  world.socket.shut(1006);
  const codes = (await Promise.all(published)).map(({ code }) => code);
  expect(codes.filter((code) => code === "outcome_unknown")).toHaveLength(sent);
  expect(codes.filter((code) => code === "not_connected")).toHaveLength(256 - sent);
});

test("never more messages in a second than the hub takes, and none is forgotten", async () => {
  const world = new World();
  const client = world.client();
  for (let number = 0; number < 200; number += 1) {
    client.subscribe({ topics: [`t${number}`] }, new Told().handlers);
  }
  client.start();
  await world.settle();
  world.socket.welcome();
  const times: number[] = world.socket.sent.map(() => world.now);
  while (times.length < 201) {
    expect(world.now).toBeLessThan(60_000);
    await world.pass(50);
    for (let more = world.socket.sent.length - times.length; more > 0; more -= 1) times.push(world.now);
    world.socket.confirm();
  }
  for (const at of times) {
    expect(times.filter((other) => other >= at && other < at + 1000).length).toBeLessThanOrEqual(40);
  }
  expect(new Set(world.socket.all("subscribe").map(({ sub }) => sub)).size).toBe(200);
});

test("a subscription given up before it was sent is never sent", async () => {
  const world = new World();
  const client = world.client();
  client.start();
  await world.settle();
  world.socket.welcome();
  for (let number = 0; number < 500; number += 1) {
    client.subscribe({ topics: ["a"] }, new Told().handlers).unsubscribe();
  }
  const kept = client.subscribe({ topics: ["kept"] }, new Told().handlers);
  await world.pass(10_000);
  expect(world.socket.sent.length).toBeLessThan(100);
  expect(world.socket.all("subscribe").at(-1)).toMatchObject({ sub: kept.sub });
});
