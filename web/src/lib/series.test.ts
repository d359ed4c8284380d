import { expect, test } from "vitest";

import { Series } from "./series";

test("the newest samples are kept, in order, whatever the clock does", () => {
  const series = new Series(2, 3);
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
