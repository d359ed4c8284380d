// Overview, Topics and System, in every state, in light, dark and on a telephone.
import { expect, test } from "vitest";

import { barriers, LATER, look, overflow, picture, pill, rows, signIn, SOON, stage } from "./browser";

const it = stage();

async function signInWith(path: string, claims: { subscribe?: string[]; publish?: string[] }) {
  await it.page.goto(`${it.hub.url}${path}`);
  await it.page.getByLabel("Token or API key").fill(await it.hub.token(claims));
  await it.page.keyboard.press("Enter");
  await pill(it.page, "Live");
}

test("the overview shows the hub's own numbers as they come", async () => {
  await signIn(it);
  const connections = it.page.getByRole("article", { name: "Connections" });
  await connections.getByText("1", { exact: true }).waitFor(LATER);
  const second = await it.context.newPage();
  await second.goto(it.hub.url);
  await connections.getByText("2", { exact: true }).waitFor(LATER);
  await it.page.getByText("Publishing healthy").waitFor(SOON);
  await it.page.locator("canvas").nth(8).waitFor(LATER); // eight sparklines, then the first chart
  expect(await barriers(it.page)).toEqual([]);

  await it.page.getByRole("button", { name: "Table" }).first().click();
  await it.page.getByRole("region", { name: "Throughput as a table" }).waitFor(SOON);
  await it.page.getByLabel("Time range").selectOption("1h");
  expect(it.page.url()).toBe(`${it.hub.url}/?range=1h`);
});

test("a chart read by keyboard spoke by itself with every new number", async () => {
  await signIn(it);
  const chart = it.page.getByRole("slider", { name: /Throughput/ });
  const points = async () => Number(await chart.getAttribute("aria-valuemax"));
  await expect.poll(points, LATER).toBeGreaterThan(2);
  await it.page.locator(".uplot").first().waitFor(LATER);
  await chart.focus();
  await it.page.keyboard.press("ArrowLeft");
  const spoken = await chart.getAttribute("aria-valuetext");
  expect(spoken).toMatch(/^\d\d:\d\d:\d\d: stored\/s .+, delivered\/s .+/);
  const before = await points();
  await expect.poll(points, LATER).toBeGreaterThan(before + 1);
  expect(await chart.getAttribute("aria-valuetext")).toBe(spoken);
});

test("numbers that grow old say so, and never pass for current ones", async () => {
  await signIn(it);
  const card = it.page.getByRole("article", { name: "Connections" });
  await card.getByText("1", { exact: true }).waitFor(LATER);
  it.hub.pause();
  try {
    await card.getByText(/\d+ s ago/).waitFor(LATER);
    await it.page.getByText(/Delivery warning/).waitFor(SOON);
    expect(await barriers(it.page)).toEqual([]);
    await look(it.page, "overview-stale");
  } finally {
    it.hub.resume();
  }
  await card.getByText(/\d+ s ago/).waitFor({ state: "detached", ...LATER });
});

test("who may not see the hub's numbers is told which grant is missing", async () => {
  await signInWith("/", { subscribe: ["demo.**"], publish: [] });
  await it.page.getByText("You may not see the hub's own numbers").waitFor(LATER);
  await it.page.getByText("hub.metrics").first().waitFor(SOON);
  expect(await barriers(it.page)).toEqual([]);
  await it.page.getByRole("link", { name: "System" }).click();
  await it.page.getByText("Only administrators see who is connected").waitFor(SOON);
  expect(await barriers(it.page)).toEqual([]);
  await it.page.getByRole("link", { name: "Topics" }).click();
  await it.page.getByRole("button", { name: "Publish…" }).click();
  await it.page.getByText("You may not publish").waitFor(SOON);
});

test("topics are a tree with a live tail", async () => {
  await signIn(it);
  await it.page.goto(`${it.hub.url}/topics`);
  await it.hub.publish([
    { topic: "voicehive.calls", data: "a call" },
    { topic: "voicehive.metrics", data: { calls: 1 } },
    { topic: "other", data: "something else" },
  ]);
  await it.page.getByRole("button", { name: "Open voicehive" }).click(LATER);
  await it.page.getByRole("button", { name: "metrics", exact: true }).nth(0).waitFor(SOON);
  await it.page.getByRole("button", { name: "voicehive.**" }).click();
  await rows(it.page, "a call").waitFor(SOON);
  expect(await rows(it.page, "something else").count()).toBe(0);
  await it.hub.publish({ topic: "voicehive.calls", data: "another call" });
  await rows(it.page, "another call").waitFor(SOON);
  await it.page.getByLabel("Filter the tail").fill("another");
  await expect.poll(() => it.page.getByRole("grid").getAttribute("aria-rowcount")).toBe("2");
  expect(await barriers(it.page)).toEqual([]);
  await look(it.page, "topics");

  await it.page.getByRole("button", { name: "calls", exact: true }).click();
  await it.page.getByText(/each for 1 d/).waitFor(SOON);
  await it.page.getByLabel("Begins with").fill("nothing");
  await it.page.getByText("No topic begins with that").waitFor(SOON);
});

test("the publish form stores an event, and says what is wrong with one that is none", async () => {
  await signInWith("/topics?publish=1", { subscribe: ["demo.**"], publish: ["demo.**"] });
  await it.page.getByLabel("Data").fill('{"text":');
  await it.page.getByText(/Not JSON/).waitFor(SOON);
  expect(await it.page.getByRole("button", { name: "Publish", exact: true }).isDisabled()).toBe(true);
  await it.page.getByLabel("Data").fill('{"text":"from the form"}');
  await it.page.getByLabel("Topic", { exact: true }).fill("demo.form");
  await it.page.getByRole("button", { name: "Publish", exact: true }).click();
  await it.page.getByText(/Stored at/).waitFor(SOON);
  await it.page.getByRole("button", { name: "as Python" }).click();
  await it.page.getByText("urllib.request.Request").waitFor(SOON);
  expect(await barriers(it.page)).toEqual([]);
  await look(it.page, "publish");

  await it.page.getByLabel("Topic", { exact: true }).fill("other.topic");
  await it.page.getByRole("button", { name: "Publish", exact: true }).click();
  await it.page.getByText(/Missing grant:/).waitFor(SOON);
  await it.page.goto(`${it.hub.url}/activity`);
  await rows(it.page, "from the form").waitFor(LATER);
});

test("an event whose answer was lost was stored again when it was sent again", async () => {
  await signIn(it);
  await it.page.goto(`${it.hub.url}/topics?publish=1`);
  let sent = 0;
  await it.page.route("**/api/v1/publish", async (route) => {
    sent += 1;
    const response = await route.fetch();
    if (sent === 1) await route.abort("connectionreset");
    else await route.fulfill({ response });
  });
  const publish = it.page.getByRole("button", { name: "Publish", exact: true });
  await publish.click(LATER);
  await it.page.getByText("It may be stored all the same").waitFor(SOON);
  await publish.click();
  await it.page.getByText(/Stored at/).waitFor(SOON);
  const kept = async () => {
    const answer = await it.context.request.get(`${it.hub.url}/api/v1/history?topics=demo.hello`);
    return (await answer.json()).events.length;
  };
  expect([sent, await kept()]).toEqual([2, 1]);
  // Once it is known to be stored, the same again is another event.
  await publish.click();
  await expect.poll(kept).toBe(2);
});

test("the system screen shows who is connected and what was refused", async () => {
  await signIn(it);
  await it.page.goto(`${it.hub.url}/system`);
  await it.page.getByText("(this page)").waitFor(LATER);
  const refused = await it.context.request.get(`${it.hub.url}/api/v1/topics?limit=0`);
  expect(refused.status()).toBe(400);
  await it.page.getByRole("cell", { name: "bad_request" }).waitFor(LATER);
  expect(await barriers(it.page)).toEqual([]);
  await look(it.page, "system");
});

test("keys lead everywhere", async () => {
  await signIn(it);
  await it.page.keyboard.press("g");
  await it.page.keyboard.press("a");
  await expect.poll(() => new URL(it.page.url()).pathname).toBe("/activity");
  await it.page.keyboard.press("g");
  await it.page.keyboard.press("t");
  await expect.poll(() => new URL(it.page.url()).pathname).toBe("/topics");
  await it.page.goBack();
  await expect.poll(() => new URL(it.page.url()).pathname).toBe("/activity");
  await it.page.keyboard.press("?");
  await it.page.getByRole("dialog", { name: "Keys" }).waitFor(SOON);
  await it.page.keyboard.press("Escape");
  await it.page.getByTestId("pill").click();
  await it.page.getByRole("dialog", { name: "Connection" }).getByText("Reconnects").waitFor(SOON);
  expect(await barriers(it.page)).toEqual([]);
});

test("an address without a screen says so", async () => {
  await signIn(it);
  await it.page.goto(`${it.hub.url}/nothing`);
  await it.page.getByText("There is no such screen").waitFor(LATER);
});

test("the overview forgot its rows and began anew at each reconnect", async () => {
  await signIn(it);
  await it.hub.publish({ topic: "demo.before", data: "before the crash" });
  await rows(it.page, "before the crash").waitFor(LATER);
  await it.hub.kill();
  await pill(it.page, "Reconnecting");
  await it.hub.restart();
  // More than the feed asks for when it begins.
  await it.hub.publish(Array.from({ length: 80 }, (_, n) => ({ topic: "demo.after", data: { n } })));
  await pill(it.page, "Live");
  await rows(it.page, '{"n":79}').waitFor(LATER);
  const count = () => it.page.getByRole("grid").getAttribute("aria-rowcount");
  await expect.poll(count).toMatch(/^8[12]$/);
  // Its session was looked up in the meantime, which must not change anything.
  await it.page.getByText("Node").waitFor(LATER);
  expect(await count()).toMatch(/^8[12]$/);
});

test("topics were asked for again as soon as they were told", async () => {
  await signIn(it);
  const asked: number[] = [];
  it.page.on("requestfinished", (request) => {
    if (request.url().includes("/api/v1/topics")) asked.push(request.timing().startTime);
  });
  await it.page.getByRole("link", { name: "Topics" }).click();
  await expect.poll(() => asked.length, LATER).toBeGreaterThanOrEqual(3);
  const pauses = asked.slice(1).map((time, before) => time - asked[before]!);
  expect(Math.min(...pauses)).toBeGreaterThan(2_000);
});

test("a topic that another prefix had hidden seemed to have got all its events at once", async () => {
  await it.hub.publish(Array.from({ length: 900 }, () => ({ topic: "big.one", data: 0 })));
  await it.hub.publish({ topic: "small.one", data: 0 });
  await signIn(it);
  await it.page.getByRole("link", { name: "Topics" }).click();
  await it.page.getByLabel("Begins with").fill("small");
  const row = (name: string) => it.page.getByRole("row").filter({ hasText: `${name}.**` });
  await row("small").getByText("0/s").waitFor(LATER);
  await it.page.getByLabel("Begins with").fill("");
  await row("big").waitFor(SOON);
  const rate = row("big").getByRole("cell").nth(1);
  await expect.poll(() => rate.innerText(), LATER).not.toBe("—");
  expect(await rate.innerText()).toBe("0/s");
});

test("the system screen asked a hub that was down without a pause", async () => {
  await signIn(it);
  await it.page.getByRole("link", { name: "System" }).click();
  await it.page.getByText("(this page)").waitFor(LATER);
  await it.hub.kill();
  const failed = { metrics: 0, readiness: 0 };
  it.page.on("requestfailed", (request) => {
    if (request.url().endsWith("/metrics")) failed.metrics += 1;
    if (request.url().endsWith("/readyz")) failed.readiness += 1;
  });
  await it.page.getByText("Not up to date").waitFor(LATER);
  // That is asked once a second.
  await expect.poll(() => failed.readiness, LATER).toBeGreaterThanOrEqual(3);
  expect(failed.metrics).toBeLessThanOrEqual(failed.readiness);
});

for (const path of ["/", "/topics", "/system"]) {
  test(`on a telephone ${path} is one column`, async () => {
    await it.page.setViewportSize({ width: 360, height: 740 });
    await signIn(it);
    await it.hub.publish({ topic: "demo.hello", data: "x".repeat(300) });
    await it.page.goto(`${it.hub.url}${path}`);
    await pill(it.page, "Live");
    await it.page.getByText("healthy").or(it.page.getByText("demo")).first().waitFor(LATER);
    expect(await overflow(it.page)).toBeLessThanOrEqual(0);
    expect(await barriers(it.page)).toEqual([]);
    await look(it.page, `phone${path.replace("/", "-")}`);
  });
}

for (const scheme of ["light", "dark"] as const) {
  test(`the overview in ${scheme}`, async () => {
    await it.page.emulateMedia({ colorScheme: scheme });
    await signIn(it);
    await it.hub.publish([
      { topic: "voicehive.calls", type: "call.started", data: { call: "c-1041", agent: "roxy" } },
      { topic: "locanext.jobs", type: "job.finished", data: { job: 77, words: 1840 } },
      { topic: "voicehive.calls", type: "call.failed", data: { call: "c-1040", level: "error" } },
      { topic: "locanext.events", type: "file_upload", data: { user: "john", file: "menu.xlsx" } },
    ]);
    await rows(it.page, "menu.xlsx").waitFor(LATER);
    // A chart of one second is no picture: wait until the hub has spoken a few times.
    const heard = async () =>
      Number(await it.page.getByRole("slider", { name: /Throughput/ }).getAttribute("aria-valuemax"));
    await expect.poll(heard, { timeout: 30_000 }).toBeGreaterThan(8);
    expect(await barriers(it.page)).toEqual([]);
    await picture(it.page, `overview-${scheme}`);
    await look(it.page, `overview-${scheme}`);
  });
}
