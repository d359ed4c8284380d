// A real browser in front of a real hub, that complains of everything a user would not see.
import { readFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";

import { type Browser, type BrowserContext, chromium, type Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";

import { Hub } from "./hub";

const IMAGES = resolve(import.meta.dirname, "../../docs/images");
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
];
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** From curl's answer until it is seen: far below a ping or a poll, so that only a push is in time. */
export const SOON = { timeout: 5_000 };
/** The page's own backoff, and a hub that starts on a busy machine. */
export const LATER = { timeout: 25_000 };

/** The browser itself reports each attempt at a port nobody listens on, and each answer that is no success. */
const EXPECTED = [/ERR_CONNECTION_/, /closed before the connection/, /Failed to load resource/];

/** What a test works with; made anew for each. */
export interface Stage {
  hub: Hub;
  context: BrowserContext;
  page: Page;
  /** What the browser complained of; a test that provokes a complaint takes it out. */
  complaints: string[];
}

/** Sets a stage before each test of a file, and takes it down after it. */
export function stage(): Stage {
  let browser: Browser;
  const it = {} as Stage;

  beforeAll(async () => {
    const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
    browser = await chromium.launch({ executablePath, args: FLAGS });
  });
  afterAll(() => browser.close());

  beforeEach(async () => {
    it.complaints = [];
    it.hub = await Hub.start();
    it.context = await browser.newContext({ viewport: { width: 1280, height: 900 }, timezoneId: "UTC" });
    await it.context.exposeFunction("complain", (text: string) => it.complaints.push(text));
    await it.context.addInitScript(() => {
      addEventListener("securitypolicyviolation", (event) => {
        const { complain } = window as unknown as { complain: (text: string) => void };
        complain(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
      });
    });
    it.context.on("weberror", (error) => it.complaints.push(String(error.error())));
    it.context.on("console", (line) => {
      if (line.type() === "error" && !EXPECTED.some((known) => known.test(line.text())))
        it.complaints.push(line.text());
    });
    it.page = await it.context.newPage();
  });
  afterEach(async () => {
    await it.context.close();
    await it.hub.stop();
    expect(it.complaints).toEqual([]);
  });
  return it;
}

/** Opens the one-time link and waits until the page is live. */
export async function signIn({ page, hub }: Stage): Promise<void> {
  await page.goto(hub.link);
  await pill(page, "Live");
}

/** Waits until the connection pill says this. */
export async function pill(page: Page, text: string): Promise<void> {
  await page.getByTestId("pill").getByText(text, { exact: true }).waitFor(LATER);
}

/** The rows of the feed, newest first. */
export function rows(page: Page, text?: string) {
  return page.getByRole("row").filter(text === undefined ? {} : { hasText: text });
}

/** Everything axe finds, as lines one can read. */
export async function barriers(page: Page): Promise<string[]> {
  // Evaluated from outside the page: its policy lets nothing in, and need not.
  await page.evaluate(AXE);
  return page.evaluate(async () => {
    const { axe } = window as unknown as {
      axe: {
        run(): Promise<{
          violations: { id: string; help: string; nodes: { html: string; failureSummary?: string }[] }[];
        }>;
      };
    };
    const { violations } = await axe.run();
    return violations.flatMap(({ id, nodes }) =>
      nodes.map(({ html, failureSummary }) => `${id}: ${html}\n${failureSummary}`),
    );
  });
}

/** Takes a picture for the docs where the docs are being updated. */
export async function picture(page: Page, name: string): Promise<void> {
  if (process.env["UPDATE_SCREENSHOTS"] !== "1") return;
  await mkdir(IMAGES, { recursive: true });
  await page.screenshot({ path: join(IMAGES, `${name}.png`), animations: "disabled" });
}

/** Takes a picture for whoever looks at one, into the folder `LOOK`. */
export async function look(page: Page, name: string): Promise<void> {
  const folder = process.env["LOOK"];
  if (folder) await page.screenshot({ path: join(folder, `${name}.png`), animations: "disabled" });
}

/** Pixels by which the page is wider than the screen. */
export function overflow(page: Page): Promise<number> {
  return page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
}
