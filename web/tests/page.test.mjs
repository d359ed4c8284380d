// The page in a real browser: it shows what curl publishes, and says so when it cannot.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { resolve } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { chromium } from "playwright-core";

import { Hub } from "./hub.mjs";

const IMAGES = resolve(import.meta.dirname, "../../docs/images");
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--no-first-run",
];
// From curl's answer until the row is seen: far below the ping interval, so that only a push is in time,
// and far above what a busy machine needs.
const SOON = { timeout: 5_000 };
// The page's own backoff, and a hub that starts on a busy machine.
const LATER = { timeout: 20_000 };
// The browser itself reports each attempt at a port that nobody listens on.
const DOWN = /^WebSocket connection to .* failed: .*(ERR_CONNECTION_|closed before)/;

let browser, context, page, hub, complaints;

before(async () => {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  browser = await chromium.launch({ executablePath, args: FLAGS });
});
after(() => browser.close());

beforeEach(async () => {
  hub = await Hub.start();
  context = await browser.newContext({ viewport: { width: 900, height: 400 }, timezoneId: "UTC" });
  page = await context.newPage();
  complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (line) => {
    if (line.type() === "error" && !DOWN.test(line.text())) complaints.push(line.text());
  });
  await page.exposeFunction("complain", (text) => complaints.push(text));
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => {
      window.complain(`policy: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
});
afterEach(async () => {
  await context.close();
  await hub.stop();
  assert.deepEqual(complaints, []);
});

const row = (text) => page.locator("#events tbody tr", { hasText: text });
const state = (text, at = page) => at.locator("#state", { hasText: text }).waitFor(LATER);
const note = (at = page) => at.getByRole("alert").innerText();
const shown = () => page.locator("#events tbody tr").count();

async function signIn() {
  await page.goto(hub.link);
  await state("live");
}

test("the sign-in link works once and leaves no code behind", async () => {
  await signIn();
  assert.equal(page.url(), `${hub.url}/`);
  assert.match(await page.locator("#who").innerText(), /^signed in as ./);

  const other = await browser.newContext();
  const second = await other.newPage();
  await second.goto(hub.link);
  await state("signed out", second);
  assert.match(await note(second), /link does not work/);
  assert.equal(second.url(), `${hub.url}/`);
  await other.close();
});

test("the page shows what curl publishes, the newest first", async () => {
  await signIn();
  await page.getByText("No events yet").waitFor();
  await page.getByText(`${hub.url}/api/v1/publish`).waitFor();

  await hub.publish({ topic: "demo.first", type: "greeting", data: { text: "hello from curl" } });
  await row("demo.first").waitFor(SOON);
  const cells = await row("demo.first").getByRole("cell").allInnerTexts();
  assert.match(cells[0], /^\d\d:\d\d:\d\d\.\d{3}$/);
  assert.deepEqual(cells.slice(1), ["demo.first", "greeting", '{"text":"hello from curl"}']);
  assert.equal(await page.getByText("No events yet").isVisible(), false);

  await hub.publish([{ topic: "demo.second", data: 2 }, { topic: "demo.third", data: 3 }]);
  await row("demo.third").waitFor(SOON);
  const order = ["demo.third", "demo.second", "demo.first"];
  assert.deepEqual(await page.locator("#events .topic").allInnerTexts(), order);
  await page.reload();
  await state("live");
  await row("demo.first").waitFor(SOON);
  assert.deepEqual(await page.locator("#events .topic").allInnerTexts(), order);
});

test("markup in an event is shown as text and does not run", async () => {
  await signIn();
  const markup = `<img src=x onerror="window.ran = 1"><script>window.ran = 1</script>`;
  await hub.publish({ topic: "demo.markup", type: markup, data: { text: markup } });
  await row("demo.markup").waitFor(SOON);
  const cells = await row("demo.markup").getByRole("cell").allInnerTexts();
  assert.deepEqual(cells.slice(2), [markup, JSON.stringify({ text: markup })]);
  assert.equal(await page.locator("table img, table script").count(), 0);
  assert.equal(await page.evaluate(() => "ran" in window), false);
});

test("after the hub was killed the page goes on with nothing missing and nothing twice", async () => {
  await signIn();
  await hub.publish({ topic: "demo.before", data: "before the crash" });
  await row("before the crash").waitFor(SOON);
  await hub.kill();
  await state("reconnecting");
  assert.equal(await row("before the crash").isVisible(), true);

  await hub.restart();
  await hub.publish({ topic: "demo.after", data: "after the crash" });
  await row("after the crash").waitFor(LATER);
  await state("live");
  assert.equal(await shown(), 2);
});

test("without a link the page shows nothing and says how to sign in", async () => {
  await hub.publish({ topic: "demo.secret", data: "not for strangers" });
  await page.goto(hub.url);
  await state("signed out");
  assert.match(await note(), /--welcome/);
  assert.equal(await shown(), 0);
  assert.equal(await page.getByText("No events yet").isVisible(), false);
});

test("signing out ends the stream and takes the events away", async () => {
  await signIn();
  await hub.publish({ topic: "demo.hello", data: 1 });
  await row("demo.hello").waitFor(SOON);
  await page.getByRole("button", { name: "Sign out" }).click();
  await state("signed out");
  assert.equal(await shown(), 0);
  await page.reload();
  await state("signed out");
});

test("only the patterns of the address are shown, and one that is none is refused", async () => {
  await signIn();
  await hub.publish([{ topic: "other.topic", data: 1 }, { topic: "demo.hello", data: 2 }]);
  await row("other.topic").waitFor(SOON);
  await page.goto(`${hub.url}/?topics=demo.**`);
  await row("demo.hello").waitFor(LATER);
  assert.equal(await shown(), 1);

  await page.goto(`${hub.url}/?topics=no..pattern`);
  await state("refused");
  assert.match(await note(), /empty tokens/);
});

test("a thousand events leave the newest two hundred rows", async () => {
  await signIn();
  const events = Array.from({ length: 1000 }, (_, n) => ({ topic: "demo.burst", data: { n } }));
  await hub.publish(events);
  await row('{"n":999}').waitFor(LATER);
  assert.equal(await shown(), 200);
  assert.equal(await row('{"n":800}').count(), 1);
});

test("on a telephone nothing is wider than the screen", async () => {
  await page.setViewportSize({ width: 360, height: 640 });
  const wider = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await signIn();
  assert.ok(await wider() <= 0);
  await hub.publish({ topic: "a".repeat(120), type: "b".repeat(120), data: "c".repeat(500) });
  await row("ccc").waitFor(SOON);
  assert.ok(await wider() <= 0);
});

for (const scheme of ["light", "dark"]) {
  test(`the page in ${scheme}`, async () => {
    await page.emulateMedia({ colorScheme: scheme });
    const at = (second) => `2026-11-20T12:00:${second}.250Z`;
    await hub.publish([
      { topic: "voicehive.calls", type: "call.started", time: at("01"), data: { call: "c-1041", agent: "roxy" } },
      { topic: "voicehive.metrics", type: "metrics", time: at("02"), data: { active_calls: 12, success_rate: 0.97 } },
      { topic: "locanext.jobs", type: "job.progress", time: at("04"), data: { job: 77, done: 0.5 } },
      { topic: "voicehive.calls", type: "call.completed", time: at("05"), data: { call: "c-1041", duration: 4.2 } },
      { topic: "locanext.jobs", type: "job.finished", time: at("09"), data: { job: 77, words: 1840, languages: ["de", "fr", "ko"] } },
      { topic: "locanext.events", type: "file_upload", time: at("12"), data: { user: "john", file: "menu.xlsx" } },
    ]);
    await signIn();
    await row("menu.xlsx").waitFor();
    const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(Number(background.match(/\d+/)[0]) > 128, scheme === "light", background);
    if (process.env.UPDATE_SCREENSHOTS === "1") {
      await mkdir(IMAGES, { recursive: true });
      await page.screenshot({ path: resolve(IMAGES, `page-${scheme}.png`), animations: "disabled" });
    }
  });
}
