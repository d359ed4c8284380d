// The client against a real hub that is killed, restarted, drained and slowed.

import { afterEach, expect, test } from "vitest";
import { WebSocket } from "ws";

import { Client, type HubEvent } from "../src/lib/client";
import { Hub, until } from "./hub.ts";

let hub: Hub | undefined;
let client: Client | undefined;
afterEach(async () => {
  client?.stop();
  await hub?.stop();
});

test("what is published arrives", async () => {
  hub = await Hub.start();
  const token = await hub.token({ subscribe: ["a.**"] });
  client = new Client({
    url: hub.socketUrl,
    getToken: () => token,
    environment: { WebSocket: WebSocket as never },
  });
  const got: HubEvent[] = [];
  client.subscribe(
    { topics: ["a.**"], replay: { last: 10 } },
    { events: ({ events }) => void got.push(...events) },
  );
  client.start();
  await hub.publish({ topic: "a.b", data: 1 });
  await until(() => got.length === 1, "the event");
  expect(got[0]?.data).toBe(1);
});
