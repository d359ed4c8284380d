import { expect, test } from "vitest";

import { Rates, rows, type TopicInfo } from "./topictree";

const info = (topic: string, events: number): TopicInfo => ({
  topic,
  events,
  bytes: 0,
  last: "e:1",
  last_received: "2026-11-20T12:00:00Z",
  subscribers: 0,
  kept_for: 60,
});

test("a tree shows what is open, and sums what lies below", () => {
  const topics = [info("a", 1), info("a.b.c", 2), info("a.b.d", 3), info("z", 4)];
  const shown = (open: string[]) =>
    rows(topics, new Set(open), () => 1).map((row) => [
      row.path,
      row.depth,
      row.events,
      row.rate,
      row.info?.events,
    ]);
  expect(shown([])).toEqual([
    ["a", 0, 6, 3, 1],
    ["z", 0, 4, 1, 4],
  ]);
  expect(shown(["a", "a.b"])).toEqual([
    ["a", 0, 6, 3, 1],
    ["a.b", 1, 5, 2, undefined],
    ["a.b.c", 2, 2, 1, 2],
    ["a.b.d", 2, 3, 1, 3],
    ["z", 0, 4, 1, 4],
  ]);
});

test("a rate needs two answers, and a topic that shrank tells none", () => {
  const rates = new Rates();
  rates.take([info("a", 10), info("b", 10)], 1000);
  expect(rates.of("a")).toBeUndefined();
  rates.take([info("a", 30), info("b", 5), info("c", 4)], 3000);
  expect([rates.of("a"), rates.of("b"), rates.of("c")]).toEqual([10, undefined, 2]);
});
