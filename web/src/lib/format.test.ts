import { expect, test } from "vitest";

import { ago, bytes, clock, duration, missing, number, short } from "./format";

test("a number that is not known is a dash and never nought", () => {
  for (const format of [number, short, bytes, duration]) {
    expect(format(undefined)).toBe("—");
    expect(format(Number.NaN)).toBe("—");
  }
  expect(number(0)).toBe("0");
});

test("numbers are rounded to what can be read", () => {
  expect([number(1234567), number(1.25), number(152.8)]).toEqual(["1,234,567", "1.3", "153"]);
  expect([short(9999), short(12_345), short(12_345_678), short(2e9)]).toEqual([
    "9,999",
    "12.3 k",
    "12.3 M",
    "2.0 G",
  ]);
  expect([bytes(512), bytes(1536), bytes(400 * 1024 ** 2)]).toEqual(["512 B", "1.5 KiB", "400 MiB"]);
});

test("durations show their two largest units", () => {
  expect([duration(0.4), duration(59), duration(3600), duration(93_784)]).toEqual([
    "0 s",
    "59 s",
    "1 h",
    "1 d 2 h",
  ]);
  expect([ago(-5000), ago(1500), ago(12 * 60_000 + 5000)]).toEqual(["just now", "just now", "12 min ago"]);
});

test("a time that is none is shown as it came", () => {
  expect(clock("yesterday")).toBe("yesterday");
  expect(clock("2026-11-20T12:00:00.123Z")).toMatch(/^\d\d:\d\d:\d\d\.123$/);
});

test("nodes that did not answer are counted in words", () => {
  expect([missing(1), missing(2)]).toEqual(["1 node did not answer", "2 nodes did not answer"]);
});
