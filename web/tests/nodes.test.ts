// The page of one node among others.
import { expect, test } from "vitest";

import { barriers, LATER, pill, SOON, stage } from "./browser";
import { Hub } from "./hub";
import { Redis } from "./redis";

const it = stage();

test("a connection of another node with the same number broke the system screen; a hung node is told", async () => {
  const redis = await Redis.start();
  const hubs: Hub[] = [];
  try {
    for (let n = 0; n < 2; n += 1) {
      hubs.push(await Hub.start({ REDIS: redis.url, SECRET: "0123456789abcdef0123456789abcdef" }));
    }
    const [near, far] = hubs as [Hub, Hub];
    const other = await it.context.newPage();
    await other.goto(far.link);
    await pill(other, "Live");
    await it.page.goto(near.link);
    await pill(it.page, "Live");
    await it.page.getByRole("link", { name: "System" }).click();
    const rows = it.page.getByRole("region", { name: "Table of connections" }).getByRole("row");
    await expect.poll(() => rows.count(), LATER).toBe(3); // with the heading
    for (const { url } of hubs) {
      await it.page.getByRole("cell", { name: new RegExp(`:${new URL(url).port}$`) }).waitFor(SOON);
    }
    far.pause();
    await it.page.getByText("1 node did not answer: their connections are not shown.").waitFor(LATER);
    expect(await barriers(it.page)).toEqual([]);
    await it.page.getByRole("link", { name: "Topics" }).click();
    await it.page.getByText("1 node did not answer: their subscribers are not counted.").waitFor(LATER);
    expect(await barriers(it.page)).toEqual([]);
    far.resume();
    await it.page.getByText("did not answer").waitFor({ state: "detached", ...LATER });
  } finally {
    for (const hub of hubs) hub.resume();
    await Promise.all(hubs.map((hub) => hub.stop()));
    await redis.stop();
  }
});
