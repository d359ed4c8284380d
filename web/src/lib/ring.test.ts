import { expect, test } from "vitest";

import { Ring } from "./ring";

test("a million items leave the newest, each under its number", () => {
  const ring = new Ring<number>(1000);
  for (let n = 0; n < 1_000_000; n += 1) ring.push(n);
  expect([ring.length, ring.first, ring.end]).toEqual([1000, 999_000, 1_000_000]);
  expect([ring.get(998_999), ring.get(999_000), ring.get(999_999), ring.get(1_000_000)]).toEqual([
    undefined,
    999_000,
    999_999,
    undefined,
  ]);
  expect(ring.newest(3)).toEqual([999_997, 999_998, 999_999]);
});

test("before it is full a ring holds what it was given", () => {
  const ring = new Ring<string>(3);
  expect(ring.newest(5)).toEqual([]);
  ring.push("a");
  ring.push("b");
  expect(ring.newest(5)).toEqual(["a", "b"]);
  ring.clear();
  ring.push("c");
  expect([ring.first, ring.get(0), ring.length]).toEqual([0, "c", 1]);
});

test("a snapshot stands still under its numbers", () => {
  const ring = new Ring<number>(10);
  for (let n = 0; n < 25; n += 1) ring.push(n);
  const held = ring.snapshot(4);
  for (let n = 25; n < 50; n += 1) ring.push(n);
  expect([held.first, held.end]).toEqual([21, 25]);
  expect([held.get(20), held.get(21), held.get(24), held.get(25)]).toEqual([undefined, 21, 24, undefined]);
});
