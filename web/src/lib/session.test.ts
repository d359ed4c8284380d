import { expect, test } from "vitest";

import { everything, type Session } from "./session";

const may = (...subscribe: string[]): Session => ({
  user: "ada",
  admin: false,
  expires_in: 60,
  subscribe,
  publish: [],
});

test("a feed of everything is what the grants allow, without the hub's own heartbeat", () => {
  expect(everything(may("**", "hub.**"))).toEqual(["**"]);
  expect(everything(may("voicehive.**", "locanext.*", "hub.metrics"))).toEqual([
    "voicehive.**",
    "locanext.*",
  ]);
  expect(everything(may("hub.metrics"))).toEqual(["hub.metrics"]);
  expect(everything(may())).toEqual([]);
});
