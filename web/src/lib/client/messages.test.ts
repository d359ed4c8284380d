// The golden messages of tests/protocol: the hub's are understood, the client's look like those it sends.

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

import { expect, test } from "vitest";

import { BrokenFrame, read } from "./messages.ts";
import { World } from "./world.ts";

const FOLDER = join(import.meta.dirname, "../../../../tests/protocol");
const golden = (name: string) => readFileSync(join(FOLDER, `${name}.json`), "utf8").trim();
const names = (who: string) =>
  readdirSync(FOLDER)
    .filter((name) => name.startsWith(`${who}-`))
    .map((name) => name.replace(".json", ""));

test.each(names("server"))("%s is understood", (name) => {
  expect(read(golden(name))).toEqual(JSON.parse(golden(name)));
});

test.each(names("server"))("%s with a field of another type is refused", (name) => {
  const message = JSON.parse(golden(name));
  // These are handed on or left alone, whatever they are.
  const free = new Set(["type"]);
  for (const field of Object.keys(message).filter((field) => !free.has(field))) {
    const frame = JSON.stringify({ ...message, [field]: ["neither", 1, "nor text"] });
    expect(() => read(frame), field).toThrow(BrokenFrame);
  }
});

test.each(names("server"))("%s with a field more is understood", (name) => {
  const message = { ...JSON.parse(golden(name)), later: { hubs: ["may", "say", "more"] } };
  expect(read(JSON.stringify(message))).toEqual(message);
});

test("a message of a later hub is passed over", () => {
  expect(read('{"type":"weather","sky":"blue"}')).toBeUndefined();
  expect(read('{"type":"toString"}')).toBeUndefined();
});

test.each([
  ["", "nothing"],
  ['{"type":"events","sub":"a","posi', "a frame cut in two"],
  ["[]", "an array"],
  ["null", "null"],
  ["7", "a number"],
  ['{"type":7}', "a type that is no text"],
  ['{"sub":"a"}', "no type"],
  ['{"type":"events","sub":"a","position":"1842","events":[]}', "a position without an epoch"],
  ['{"type":"events","sub":"a","position":"e:1","events":[{"topic":"a"}]}', "an event without an offset"],
  ['{"type":"ping","time":"x","head":"e:1","caught_up":[7],"stale":false}', "a name that is no text"],
])("%s is refused: %s", (frame) => {
  expect(() => read(frame)).toThrow(BrokenFrame);
});

test("a binary frame is refused", () => {
  expect(() => read(new ArrayBuffer(2))).toThrow(BrokenFrame);
});

test("what the client sends are the golden messages", async () => {
  const world = new World();
  let token = "a token";
  const client = world.client({ name: "dashboard", getToken: () => token });
  const on = { events: () => {} };
  client.subscribe({ topics: ["voicehive.*", "locanext.**"], replay: { since: "5m" } }, on);
  const latest = {
    topics: ["locanext.**"],
    mode: "latest" as const,
    maxHz: 10,
    replay: { latest: true as const },
  };
  const b = client.subscribe(latest, on);
  client.subscribe({ topics: ["voicehive.*"], resume: "3f9a:1841" }, on);
  client.start();
  await world.settle();
  const { socket } = world;
  socket.welcome({ expires_in: 100 });
  socket.say({ type: "ping", time: "2026-11-20T12:00:00Z", head: "e:0", caught_up: [], stale: false });
  b.unsubscribe();
  token = "a newer token";
  const refreshed = client.refresh();
  await world.settle();
  socket.say({ type: "refreshed", id: socket.all("refresh")[0].id, expires_in: 100 });
  await refreshed;
  const event = { topic: "voicehive.calls", type: "call.completed", key: "c7", data: { duration: 4.2 } };
  void client.publish([event]);

  // Ids and the names of subscriptions are the client's own; it fixes the ids of events.
  const plain = ({ id: _, sub: __, ...rest }: Record<string, unknown>) => rest;
  const wanted = Object.fromEntries(names("client").map((name) => [name, plain(JSON.parse(golden(name)))]));
  delete wanted["client-connect"]!["subscribe"]; // each is a message of its own, so that each has its own answer
  const [all, newest, resume] = socket.all("subscribe").map(plain);
  const [published] = socket.all("publish");
  const { id, ...sent } = published.events[0];
  expect(id).toBe("id-1");
  expect({
    "client-connect": plain(socket.sent[0]),
    "client-pong": plain(socket.all("pong")[0]),
    "client-publish": plain({ ...published, events: [sent] }),
    "client-refresh": plain(socket.all("refresh")[0]),
    "client-subscribe-all": all,
    "client-subscribe-latest": newest,
    "client-subscribe-resume": resume,
    "client-unsubscribe": plain(socket.all("unsubscribe")[0]),
  }).toEqual(wanted);
});
