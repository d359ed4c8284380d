// The feed: what curl publishes is seen, held, filtered, linked to; and nothing is missing after a crash.
import { execFileSync } from "node:child_process";

import { expect, test } from "vitest";

import { barriers, LATER, look, overflow, picture, pill, rows, signIn, SOON, stage } from "./browser";

const it = stage();

async function toActivity(search = "") {
  await signIn(it);
  await it.page.goto(`${it.hub.url}/activity${search}`);
  await pill(it.page, "Live");
}

const texts = async (of: string) =>
  (await it.page.locator(`[role=row] .${of}`).allInnerTexts()).map((text) => text.trim());

test("an empty feed says what to do, and curl fills it within a second", async () => {
  await toActivity();
  await it.page.getByText("No events yet").waitFor(SOON);
  await it.page.getByText(`${it.hub.url}/api/v1/publish`).waitFor(SOON);
  expect(await barriers(it.page)).toEqual([]);
  await look(it.page, "activity-empty");

  await it.hub.publish({ topic: "demo.first", type: "greeting", data: { text: "hello from curl" } });
  await rows(it.page, "hello from curl").waitFor({ timeout: 1_000 });
  expect(await texts("topic")).toEqual(["demo.first"]);
  expect(await texts("type")).toEqual(["greeting"]);

  await it.hub.publish([
    { topic: "demo.second", data: 2 },
    { topic: "demo.third", data: 3 },
  ]);
  await rows(it.page, "demo.third").waitFor(SOON);
  expect(await texts("topic")).toEqual(["demo.third", "demo.second", "demo.first"]);
  await it.page.reload();
  await rows(it.page, "demo.first").waitFor(LATER);
  expect(await texts("topic")).toEqual(["demo.third", "demo.second", "demo.first"]);
});

test("what the hub makes of events itself is left out until it is asked for", async () => {
  await toActivity();
  await it.hub.publish({ topic: "voicehive.calls", data: { duration: 12, status: "success", agent: "ada" } });
  await rows(it.page, "ada").waitFor(SOON);
  expect(await texts("topic")).toEqual(["voicehive.calls"]);
  await it.page.getByLabel("Projections").check();
  await rows(it.page, "voicehive.dashboard.summary").first().waitFor(SOON);
  expect(await barriers(it.page)).toEqual([]);
  await it.page.reload();
  await rows(it.page, "voicehive.dashboard.summary").first().waitFor(LATER);
  await it.page.getByLabel("Projections").uncheck();
  await expect.poll(() => texts("topic")).toEqual(["voicehive.calls"]);
  await it.page.goto(`${it.hub.url}/activity?topics=voicehive.dashboard.summary`);
  await rows(it.page, "voicehive.dashboard.summary").first().waitFor(LATER);
});

test("after the hub was killed the page goes on with nothing missing and nothing twice", async () => {
  await toActivity();
  await it.hub.publish({ topic: "demo.before", data: "before the crash" });
  await rows(it.page, "before the crash").waitFor(SOON);
  await it.hub.kill();
  await pill(it.page, "Reconnecting");
  await it.page.getByRole("button", { name: "Retry now" }).waitFor(SOON);
  expect(await rows(it.page, "before the crash").count()).toBe(1);
  expect(await barriers(it.page)).toEqual([]);
  await look(it.page, "activity-reconnecting");

  await it.hub.restart();
  const events = Array.from({ length: 30 }, (_, n) => ({ topic: "demo.after", data: { n } }));
  await it.hub.publish(events);
  await rows(it.page, '{"n":29}').waitFor(LATER);
  await pill(it.page, "Live");
  // Thirty after, one before, and the line that says where the replay ended.
  await expect.poll(() => it.page.getByRole("grid").getAttribute("aria-rowcount")).toMatch(/^3[12]$/);
  const numbers = (await texts("data"))
    .flatMap((text) => /^\{"n":(\d+)\}$/.exec(text)?.[1] ?? [])
    .map(Number);
  expect(numbers.length).toBeGreaterThan(15);
  expect(numbers).toEqual(numbers.map((_, place) => 29 - place));
});

test("a log that was replaced is a gap in the feed", async () => {
  await toActivity();
  await it.hub.publish({ topic: "demo.before", data: "in the old log" });
  await rows(it.page, "in the old log").waitFor(SOON);
  await it.hub.kill();
  await it.hub.restart({ anew: true });
  await rows(it.page, "Events are missing").filter({ hasText: "(epoch)" }).waitFor(LATER);
  await it.hub.publish({ topic: "demo.after", data: "in the new log" });
  await rows(it.page, "in the new log").waitFor(LATER);
  expect(await barriers(it.page)).toEqual([]);
  await look(it.page, "activity-gap");
});

test("paused, the feed stands still and counts what came", async () => {
  await toActivity();
  await it.hub.publish({ topic: "demo.hello", data: "first" });
  await rows(it.page, "first").waitFor(SOON);
  await it.page.keyboard.press("Space");
  await it.page.getByText("Paused: what comes is kept").waitFor(SOON);
  await it.hub.publish(Array.from({ length: 238 }, (_, n) => ({ topic: "demo.hello", data: { n } })));
  await it.page.getByText("Paused · 238 new").waitFor(SOON);
  expect(await rows(it.page).count()).toBe(1);
  expect(await barriers(it.page)).toEqual([]);
  await it.page.keyboard.press("Space");
  await rows(it.page, '{"n":237}').waitFor(SOON);
  expect(await it.page.getByRole("grid").getAttribute("aria-rowcount")).toBe("239");
});

test("scrolled away from the top the feed freezes, and one press leads back", async () => {
  await it.hub.publish(Array.from({ length: 100 }, (_, n) => ({ topic: "demo.hello", data: `old ${n}` })));
  await toActivity();
  await rows(it.page, "old 99").waitFor(SOON);
  await it.page.getByRole("grid").evaluate((grid) => grid.scrollTo({ top: 720 }));
  await rows(it.page, "old 75").waitFor(SOON);
  await it.hub.publish(Array.from({ length: 42 }, (_, n) => ({ topic: "demo.hello", data: `new ${n}` })));
  await it.page.getByRole("button", { name: "42 new" }).waitFor(SOON);
  expect(await rows(it.page, "old 75").count()).toBe(1);
  await it.page.getByRole("button", { name: "42 new" }).click();
  await rows(it.page, "new 41").waitFor(SOON);
});

for (const hold of ["scrolled away", "paused"]) {
  test(`${hold}, a feed whose rows were all filtered out never showed another one`, async () => {
    await it.hub.publish(Array.from({ length: 100 }, (_, n) => ({ topic: "demo.hello", data: `old ${n}` })));
    await toActivity();
    await rows(it.page, "old 99").waitFor(SOON);
    if (hold === "paused") await it.page.getByRole("button", { name: "Pause" }).click();
    else await it.page.getByRole("grid").evaluate((grid) => grid.scrollTo({ top: 720 }));
    await it.page.getByLabel("Filter", { exact: true }).fill("rare");
    await it.page.getByText("Nothing matches the filter").waitFor(SOON);
    if (hold === "paused") await it.page.getByRole("button", { name: "Go on" }).click();
    await it.hub.publish({ topic: "demo.hello", data: "a rare one" });
    await rows(it.page, "a rare one").waitFor(SOON);
  });
}

test("the filter finds by field, by data and by text, and stays in the address", async () => {
  await it.hub.publish([
    { topic: "locanext.events", type: "file_upload", data: { user: "john", file: "menu.xlsx" } },
    { topic: "locanext.events", type: "file_upload", data: { user: "mary", file: "list.xlsx" } },
    { topic: "voicehive.calls", type: "call.completed", data: { user: "john" } },
  ]);
  await toActivity();
  await rows(it.page, "menu.xlsx").waitFor(SOON);
  await it.page.keyboard.press("/");
  await it.page.keyboard.type("type:file_upload user:john");
  await expect.poll(() => texts("data")).toEqual(['{"user":"john","file":"menu.xlsx"}']);
  const kept = () => new URL(it.page.url()).searchParams.get("q");
  await expect.poll(kept).toBe("type:file_upload user:john");
  await it.page.reload();
  await rows(it.page, "menu.xlsx").waitFor(LATER);
  await expect.poll(() => texts("data")).toEqual(['{"user":"john","file":"menu.xlsx"}']);
  await it.page.getByLabel("Filter", { exact: true }).fill("nobody");
  await it.page.getByText("Nothing matches the filter").waitFor(SOON);
});

test("a row opens with all it holds, and its link opens it again", async () => {
  await it.context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: it.hub.url });
  await it.hub.publish([
    { topic: "demo.first", data: 1 },
    { topic: "demo.hello", type: "greeting", key: "k1", data: { text: 'it\'s "quoted"' } },
  ]);
  await toActivity();
  await rows(it.page, "greeting").waitFor(SOON);
  await it.page.getByRole("grid").focus();
  await it.page.keyboard.press("j"); // the line that says where the replay ended
  await it.page.keyboard.press("j");
  await it.page.keyboard.press("Enter");
  const drawer = it.page.getByRole("dialog", { name: "Event" });
  await drawer.getByText("k1").waitFor(SOON);
  expect(await barriers(it.page)).toEqual([]);
  await look(it.page, "activity-drawer");
  await drawer.getByRole("button", { name: "Copy link" }).click();
  const link = await it.page.evaluate(() => navigator.clipboard.readText());
  await drawer.getByRole("button", { name: "Copy as curl" }).click();
  const curl = await it.page.evaluate(() => navigator.clipboard.readText());
  const env = { ...process.env, TOKEN: await it.hub.token() };
  expect(execFileSync("bash", ["-c", curl], { encoding: "utf8", env })).toMatch(/"accepted":1/);
  await it.page.keyboard.press("Escape");
  await drawer.waitFor({ state: "hidden" });

  await it.page.goto(link);
  await it.page.getByRole("dialog", { name: "Event" }).getByText("greeting").waitFor(LATER);
});

test("the link of an event was followed again with every change of the address", async () => {
  await it.hub.publish({ topic: "demo.hello", data: "linked" });
  await signIn(it);
  let asked = 0;
  it.page.on("request", (request) => (asked += request.url().includes("/api/v1/history") ? 1 : 0));
  const [{ last }] = (await (await it.context.request.get(`${it.hub.url}/api/v1/topics?prefix=demo`)).json())
    .topics;
  await it.page.goto(`${it.hub.url}/activity?q=+linked&at=${last}`);
  const drawer = it.page.getByRole("dialog", { name: "Event" });
  await drawer.waitFor(LATER);
  // The page writes the filter as it understood it.
  const address = () => decodeURIComponent(new URL(it.page.url()).search);
  await expect.poll(address).toBe(`?q=linked&at=${last}`);
  await it.page.keyboard.press("Escape");
  await drawer.waitFor({ state: "hidden" });
  await expect.poll(address).toBe("?q=linked");
  expect(asked).toBe(1);

  await it.page.goto(`${it.hub.url}/activity?at=${last.split(":")[0]}:999999`);
  await it.page.getByText("no longer kept").waitFor(LATER);
  expect(await barriers(it.page)).toEqual([]);
});

test("the row somebody stood at moved away under new ones", async () => {
  await it.hub.publish({ topic: "demo.hello", data: "read me" });
  await toActivity();
  await rows(it.page, "read me").waitFor(SOON);
  await it.page.getByRole("grid").focus();
  await it.page.keyboard.press("j");
  await it.page.keyboard.press("j");
  await it.hub.publish(Array.from({ length: 60 }, (_, n) => ({ topic: "demo.hello", data: { n } })));
  await it.page.getByRole("button", { name: "60 new" }).waitFor(SOON);
  const row = rows(it.page, "read me");
  expect(await row.getAttribute("aria-selected")).toBe("true");
  expect(await it.page.getByRole("grid").getAttribute("aria-activedescendant")).toBe(
    await row.getAttribute("id"),
  );
  expect(await barriers(it.page)).toEqual([]);
  await it.page.keyboard.press("Escape");
  await rows(it.page, '{"n":59}').waitFor(SOON);
});

test("markup in every field is text, and a large event is shown in part", async () => {
  await toActivity();
  const markup = `<img src=x onerror="window.ran = 1"><script>window.ran = 1</script>`;
  await it.hub.publish([
    {
      topic: "demo.markup",
      type: markup,
      key: markup,
      id: markup,
      source: markup,
      data: { [markup]: markup },
    },
    { topic: "demo.large", data: "x".repeat(50 * 1024) },
  ]);
  await rows(it.page, "demo.large").waitFor(SOON);
  expect((await texts("type"))[1]).toBe(markup);
  await rows(it.page, "demo.markup").click();
  const drawer = it.page.getByRole("dialog", { name: "Event" });
  expect(await drawer.locator("pre").innerText()).toBe(JSON.stringify({ [markup]: markup }, null, 2));
  expect(await it.page.locator("main img, dialog img, main script").count()).toBe(0);
  await it.page.keyboard.press("Escape");
  await rows(it.page, "demo.large").click();
  expect((await drawer.locator("pre").innerText()).length).toBe(50 * 1024 + 2);
  expect(await it.page.evaluate(() => "ran" in window)).toBe(false);
});

test("a pattern that is not granted is named, and not asked for again and again", async () => {
  await it.page.goto(`${it.hub.url}/activity?topics=secret.**`);
  await it.page.getByLabel("Token or API key").fill(await it.hub.token({ subscribe: ["demo.**"] }));
  await it.page.keyboard.press("Enter");
  await it.page.getByText("You may not read secret.**").waitFor(LATER);
  await it.page.getByText(/forbidden/).waitFor(SOON);
  expect(await barriers(it.page)).toEqual([]);
  await look(it.page, "activity-denied");
  await it.page.getByRole("button", { name: "Try again" }).click();
  await it.page.getByText("No events yet").waitFor(SOON);
});

test("a flood is sampled and says so, and the page stays small", async () => {
  await toActivity();
  await it.hub.publish({ topic: "demo.flood", data: "first" });
  await rows(it.page, "first").waitFor(SOON);
  const batch = Array.from({ length: 10_000 }, (_, n) => ({ topic: "demo.flood", data: { n } }));
  for (let round = 0; round < 5; round += 1) await it.hub.publish(batch);
  await it.page.getByText(/1 in \d+/).waitFor(SOON);
  expect(await it.page.getByRole("row").count()).toBeLessThan(100);
  expect(Number(await it.page.getByRole("grid").getAttribute("aria-rowcount"))).toBeLessThanOrEqual(10_000);
});

test("after a flood nothing told of the events that were not shown", async () => {
  await toActivity();
  await it.hub.publish({ topic: "demo.flood", data: "first" });
  await rows(it.page, "first").waitFor(SOON);
  await it.hub.publish(Array.from({ length: 5_000 }, (_, n) => ({ topic: "demo.flood", data: { n } })));
  await rows(it.page, "are left out").first().waitFor(SOON);
  await it.page.getByText(/1 in \d+/).waitFor({ state: "detached", ...SOON });
  await look(it.page, "activity-flood");
  const shown = Number(await it.page.getByRole("grid").getAttribute("aria-rowcount"));
  await it.page.getByLabel("Filter", { exact: true }).fill("-topic:demo.flood");
  await rows(it.page, "first").waitFor({ state: "detached", ...SOON });
  const told = await rows(it.page, "are left out").allInnerTexts();
  const leftOut = told.map((text) => Number(/([\d,]+) of the/.exec(text)?.[1]?.replaceAll(",", "")));
  expect(shown - told.length + leftOut.reduce((sum, count) => sum + count, 0)).toBe(5_001);
});

test("on a telephone there is one column and nothing is wider than the screen", async () => {
  await it.page.setViewportSize({ width: 360, height: 640 });
  await toActivity();
  expect(await overflow(it.page)).toBeLessThanOrEqual(0);
  await it.hub.publish({ topic: "a".repeat(120), type: "b".repeat(120), data: "c".repeat(500) });
  await rows(it.page, "ccc").waitFor(SOON);
  expect(await overflow(it.page)).toBeLessThanOrEqual(0);
  expect(await barriers(it.page)).toEqual([]);
  await look(it.page, "activity-phone");
});

for (const scheme of ["light", "dark"] as const) {
  test(`the feed in ${scheme}`, async () => {
    await it.page.emulateMedia({ colorScheme: scheme });
    const at = (second: string) => `2026-11-20T12:00:${second}.250Z`;
    await it.hub.publish([
      {
        topic: "voicehive.calls",
        type: "call.started",
        time: at("01"),
        data: { call: "c-1041", agent: "roxy" },
      },
      {
        topic: "voicehive.metrics",
        type: "metrics",
        time: at("02"),
        data: { active_calls: 12, success_rate: 0.97 },
      },
      { topic: "locanext.jobs", type: "job.progress", time: at("04"), data: { job: 77, done: 0.5 } },
      {
        topic: "voicehive.calls",
        type: "call.failed",
        time: at("05"),
        data: { call: "c-1040", level: "error" },
      },
      { topic: "locanext.jobs", type: "job.finished", time: at("09"), data: { job: 77, words: 1840 } },
      {
        topic: "locanext.events",
        type: "file_upload",
        time: at("12"),
        data: { user: "john", file: "menu.xlsx" },
      },
    ]);
    await toActivity();
    await rows(it.page, "menu.xlsx").waitFor(SOON);
    const background = await it.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    expect(Number(background.match(/\d+/)?.[0]) > 128).toBe(scheme === "light");
    expect(await barriers(it.page)).toEqual([]);
    await picture(it.page, `activity-${scheme}`);
    await look(it.page, `activity-${scheme}`);
  });
}
