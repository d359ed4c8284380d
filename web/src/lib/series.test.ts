import { expect, test } from "vitest";

import { Series } from "./series";

test("the newest samples are kept, in order, whatever the clock does", () => {
  const series = new Series(2, 3, 5_000);
  expect([series.newest(0), series.newestTime, series.mean(0, 0, 9e9)]).toEqual([
    undefined,
    undefined,
    undefined,
  ]);
  for (const time of [1000, 2000, 3000, 4000]) series.push(time, [time / 1000, -1]);
  series.push(2500, [99, 99]); // a clock that jumped back
  series.push(4000, [7, Number.NaN]); // again for the same second
  expect(series.table([0, 1], 0)).toEqual([
    [2, 3, 4],
    [2, 3, 7],
    [-1, -1, null],
  ]);
  expect(series.table([0], 3000)).toEqual([
    [3, 4],
    [3, 7],
  ]);
  expect([series.newest(0), series.newest(1), series.mean(0, 2000, 4000)]).toEqual([7, undefined, 2.5]);
});

test("a line led straight over the time of which nothing is known", () => {
  const series = new Series(1, 10, 5_000);
  for (const time of [1000, 2000, 7000, 60_000]) series.push(time, [1]);
  expect(series.table([0], 0)).toEqual([
    [1, 2, 7, 8, 60],
    [1, 1, 1, null, 1],
  ]);
});
