// The page in a real browser: it shows what curl publishes.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { resolve } from "node:path";
import { after, before, beforeEach, afterEach, test } from "node:test";

import { chromium } from "playwright-core";

import { Hub } from "./hub.mjs";

const IMAGES = resolve(import.meta.dirname, "../../docs/images");
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--no-first-run",
];

let browser, hub, page, complaints;

before(async () => {
  const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
  browser = await chromium.launch({ executablePath, args: FLAGS });
});
after(() => browser.close());

beforeEach(async () => {
  hub = await Hub.start();
  page = await browser.newPage({ viewport: { width: 900, height: 560 } });
  complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (line) => {
    if (line.text().includes("Content Security Policy")) complaints.push(line.text());
  });
});
afterEach(async () => {
  await page.close();
  await hub.stop();
  assert.deepEqual(complaints, []);
});

const row = (text) => page.locator("#events li", { hasText: text });
const state = (text) => page.locator("#state", { hasText: text });

test("the sign-in link works once and leaves no code behind", async () => {
  await page.goto(hub.link);
  await state("live").waitFor();
  assert.equal(page.url(), `${hub.url}/`);
  const other = await browser.newContext();
  const second = await other.newPage();
  await second.goto(hub.link);
  await second.locator("#state", { hasText: "signed out" }).waitFor();
  await other.close();
});

test("the page shows what curl publishes, as text", async () => {
  await page.goto(hub.link);
  await state("live").waitFor();
  await hub.publish({ topic: "demo.hello", type: "greeting", data: { text: "hello from curl" } });
  await row("hello from curl").waitFor();
  assert.match(await row("hello from curl").innerText(), /demo\.hello/);
  const markup = "<img src=x onerror=alert(1)>";
  await hub.publish({ topic: "demo.markup", data: { text: markup } });
  await row("onerror").waitFor();
  assert.equal(await page.locator("#events img").count(), 0);
});

test("the page comes back after the hub was killed, with nothing missing", async () => {
  await page.goto(hub.link);
  await state("live").waitFor();
  await hub.publish({ topic: "demo.before", data: "before the crash" });
  await row("before the crash").waitFor();
  await hub.kill();
  await state("reconnecting").waitFor();
  await hub.restart();
  await hub.publish({ topic: "demo.after", data: "after the crash" });
  await row("after the crash").waitFor();
  assert.equal(await row("before the crash").count(), 1);
});

test("without a link the page says how to sign in", async () => {
  await page.goto(hub.url);
  await state("signed out").waitFor();
  assert.match(await page.locator("#hint").innerText(), /--welcome/);
});

for (const scheme of ["light", "dark"]) {
  test(`the page in ${scheme}`, async () => {
    await page.emulateMedia({ colorScheme: scheme });
    await page.goto(hub.link);
    await state("live").waitFor();
    const time = "2026-11-20T12:00:00Z";
    await hub.publish([
      { topic: "voicehive.calls", type: "call.completed", time, data: { duration: 4.2, agent: "roxy" } },
      { topic: "voicehive.metrics", type: "metrics", time, data: { active_calls: 12, success_rate: 0.97 } },
      { topic: "locanext.events.file_upload", type: "file_upload", time, data: { user: "john", file: "menu.xlsx" } },
    ]);
    await row("menu.xlsx").waitFor();
    const picture = await page.screenshot();
    assert.ok(picture.length > 5_000, "a picture of something");
    if (process.env.UPDATE_SCREENSHOTS === "1") {
      await mkdir(IMAGES, { recursive: true });
      await page.screenshot({ path: resolve(IMAGES, `page-${scheme}.png`) });
    }
  });
}
