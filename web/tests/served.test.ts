// How the page is served: its budgets, its encodings, its policy.
import { readdirSync, readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { gzipSync } from "node:zlib";

import { expect, test } from "vitest";

import { signIn, stage } from "./browser";

const DIST = resolve(import.meta.dirname, "../dist");
const KB = 1000;

const it = stage();

const gzipped = (name: string) => gzipSync(readFileSync(join(DIST, name)), { level: 9 }).length;

test("what comes before the first paint is at most 60 kB, all routes at most 100 kB", () => {
  const page = readFileSync(join(DIST, "index.html"), "utf8");
  const named = [...page.matchAll(/(?:src|href)="\/(assets\/[^"]+)"/g)].map(([, name]) => name!);
  expect(named.length).toBeGreaterThanOrEqual(2);
  const first = ["index.html", "favicon.svg", ...named].reduce((sum, name) => sum + gzipped(name), 0);
  expect(first).toBeLessThanOrEqual(60 * KB);
  const all = readdirSync(join(DIST, "assets")).filter((name) => /\.(js|css)$/.test(name));
  const sum = all.reduce((sum, name) => sum + gzipped(`assets/${name}`), 0);
  expect(sum).toBeGreaterThan(first - 2 * KB);
  expect(sum).toBeLessThanOrEqual(100 * KB);
});

test("only these scripts and styles may run, from nowhere but the hub", async () => {
  const requests: string[] = [];
  it.page.on("request", (request) => requests.push(request.url()));
  await signIn(it);
  expect(requests.filter((url) => !url.startsWith(it.hub.url))).toEqual([]);

  const answer = await it.context.request.get(it.hub.url);
  const policy = answer.headers()["content-security-policy"]!;
  expect(policy).toMatch(/default-src 'none'; script-src 'self' 'sha256-[^']+'; style-src 'self'/);
  expect(policy).not.toMatch(/unsafe|\*/);
  expect(answer.headers()["cache-control"]).toBe("no-store");
  expect(answer.headers()["x-content-type-options"]).toBe("nosniff");

  const injected = await it.page.evaluate(() => {
    try {
      document.body.insertAdjacentHTML("beforeend", "<b>markup</b>");
      return true;
    } catch {
      return false;
    }
  });
  expect(injected).toBe(false);
  // The console's line and the violation event.
  await expect.poll(() => it.complaints.length).toBe(2);
  expect(it.complaints.splice(0).join("\n")).toContain("TrustedHTML");
});

test("files are served compressed once and kept for ever", async () => {
  const page = readFileSync(join(DIST, "index.html"), "utf8");
  const script = /src="(\/assets\/[^"]+\.js)"/.exec(page)![1]!;
  const plain = readFileSync(join(DIST, script));
  for (const [accepted, encoding] of [
    ["br, gzip", "br"],
    ["gzip", "gzip"],
    ["identity", undefined],
  ] as const) {
    const headers = { "accept-encoding": accepted };
    const answer = await it.context.request.get(it.hub.url + script, { headers });
    expect(answer.headers()["content-encoding"]).toBe(encoding);
    expect(answer.headers()["cache-control"]).toBe("public, max-age=31536000, immutable");
    expect(answer.headers()["vary"]).toContain("accept-encoding");
    expect((await answer.body()).equals(plain)).toBe(true);
  }
  expect((await it.context.request.get(`${it.hub.url}/assets/%2e%2e%2f%2e%2e%2fpackage.json`)).status()).toBe(
    404,
  );
  expect((await it.context.request.get(`${it.hub.url}/assets/nothing.js`)).status()).toBe(404);
});
