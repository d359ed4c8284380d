// Ways in and out.
import { expect, test } from "vitest";

import { barriers, LATER, look, pill, rows, signIn, SOON, stage } from "./browser";
import { Hub } from "./hub";

const it = stage();

test("the sign-in link works once and leaves no code behind", async () => {
  await signIn(it);
  expect(it.page.url()).toBe(`${it.hub.url}/`);

  const other = await it.context.browser()!.newContext();
  const second = await other.newPage();
  await second.goto(it.hub.link);
  await second.getByText("link does not work").waitFor(LATER);
  expect(second.url()).toBe(`${it.hub.url}/`);
  await other.close();
});

test("a stranger sees nothing but how to sign in, and comes back to where they wanted to be", async () => {
  await it.hub.publish({ topic: "demo.secret", data: "not for strangers" });
  await it.page.goto(`${it.hub.url}/activity?q=secret`);
  await it.page.getByRole("heading", { name: "Sign in to pulsehub" }).waitFor(LATER);
  expect(await it.page.getByText("not for strangers").count()).toBe(0);
  expect(await barriers(it.page)).toEqual([]);
  await look(it.page, "sign-in");

  await it.page.getByLabel("Token or API key").fill("nonsense");
  await it.page.keyboard.press("Enter");
  await it.page.getByText("These credentials are not accepted.").waitFor(SOON);

  await it.page.getByLabel("Token or API key").fill(await it.hub.token({ subscribe: ["demo.**"] }));
  await it.page.keyboard.press("Enter");
  await pill(it.page, "Live");
  await rows(it.page, "not for strangers").waitFor(SOON);
  expect(new URL(it.page.url()).pathname).toBe("/activity");
  // The token itself stays nowhere in the page.
  expect(
    await it.page.evaluate(() => Object.keys(localStorage).length + Object.keys(sessionStorage).length),
  ).toBe(0);
});

test("where everybody may see something, the page still lets people sign in", async () => {
  const open = await Hub.start({}, '[auth.anonymous]\nsubscribe = ["voicehive.dashboard.*"]\npublish = []\n');
  try {
    await it.page.goto(open.url);
    await it.page.getByText("anonymous", { exact: true }).waitFor(LATER);
    await it.page.getByRole("button", { name: "Sign in" }).click();
    await it.page.getByLabel("Token or API key").fill(await open.token({ subscribe: ["demo.**"] }));
    await it.page.keyboard.press("Enter");
    await it.page.getByRole("button", { name: "Sign out" }).waitFor(LATER);
    await pill(it.page, "Live");
    expect(await it.page.getByText("anonymous", { exact: true }).count()).toBe(0);
  } finally {
    await open.stop();
  }
});

test("a hub of synthetic data says so on every screen, another one does not", async () => {
  const mark = it.page.getByText("Synthetic data");
  await signIn(it);
  expect(await mark.count()).toBe(0);
  await it.hub.restartAsDemo();
  await signIn(it);
  for (const screen of ["Activity", "Topics", "System", "Overview"]) {
    await it.page.getByRole("link", { name: screen, exact: true }).click();
    await mark.waitFor(SOON);
  }
  expect(await barriers(it.page)).toEqual([]);
});

test("an API key signs in, and its end shows in the page", async () => {
  const key = await it.hub.command("key", "create", "--name", "screen", "--subscribe", "demo.**");
  await it.page.goto(it.hub.url);
  await it.page.getByLabel("Token or API key").fill(key);
  await it.page.keyboard.press("Enter");
  await pill(it.page, "Live");
  await it.hub.command("key", "revoke", key.split("_")[1]!);
  await it.page.getByText("Your session has ended").waitFor(LATER);
});

test("when the session ends the page stays, asks in place and goes on", async () => {
  const short = await it.hub.token({ subscribe: ["demo.**"], ttl: "4s" });
  await it.page.goto(`${it.hub.url}/activity`);
  await it.page.getByLabel("Token or API key").fill(short);
  await it.page.keyboard.press("Enter");
  await pill(it.page, "Live");
  await it.hub.publish({ topic: "demo.hello", data: "before the end" });
  await rows(it.page, "before the end").waitFor(SOON);

  await it.page.getByText("Your session has ended").waitFor(LATER);
  expect(await barriers(it.page)).toEqual([]);
  await it.hub.publish({ topic: "demo.hello", data: "while signed out" });
  expect(await rows(it.page, "before the end").count()).toBe(1);
  await it.page.getByLabel("Token or API key").fill(await it.hub.token({ subscribe: ["demo.**"] }));
  await it.page.keyboard.press("Enter");
  await pill(it.page, "Live");
  await rows(it.page, "while signed out").waitFor(SOON);
  expect(await rows(it.page, "before the end").count()).toBe(1);
});

test("signing out ends the stream and takes the events away", async () => {
  await signIn(it);
  await it.hub.publish({ topic: "demo.hello", data: "seen" });
  await rows(it.page, "seen").waitFor(SOON);
  await it.page.getByRole("button", { name: "Sign out" }).click();
  await it.page.getByRole("heading", { name: "Sign in to pulsehub" }).waitFor(LATER);
  expect(await it.page.getByText("seen", { exact: true }).count()).toBe(0);
  await it.page.reload();
  await it.page.getByRole("heading", { name: "Sign in to pulsehub" }).waitFor(LATER);
});

test("going back after signing out showed what the last user had seen", async () => {
  await signIn(it);
  await it.page.getByRole("link", { name: "Activity" }).click();
  await it.hub.publish({ topic: "demo.hello", data: "seen" });
  await rows(it.page, "seen").waitFor(SOON);
  await it.page.getByRole("button", { name: "Sign out" }).click();
  await it.page.getByRole("heading", { name: "Sign in to pulsehub" }).waitFor(LATER);
  await it.page.goBack();
  await it.page.getByRole("heading", { name: "Sign in to pulsehub" }).waitFor(LATER);
  expect(await it.page.getByText("seen", { exact: true }).count()).toBe(0);
});

test("signing out in one tab left everything on show in the other", async () => {
  await signIn(it);
  await it.hub.publish({ topic: "demo.hello", data: "seen" });
  await rows(it.page, "seen").waitFor(SOON);
  const other = await it.context.newPage();
  await other.goto(it.hub.url);
  await other.getByRole("button", { name: "Sign out" }).click(LATER);
  await it.page.getByRole("heading", { name: "Sign in to pulsehub" }).waitFor(LATER);
  expect(await it.page.getByText("seen", { exact: true }).count()).toBe(0);
});

test("whoever signed in in another tab saw what the first user had seen", async () => {
  await it.page.goto(`${it.hub.url}/activity`);
  await it.page
    .getByLabel("Token or API key")
    .fill(await it.hub.token({ subscribe: ["demo.**"], sub: "ada" }));
  await it.page.keyboard.press("Enter");
  await pill(it.page, "Live");
  await it.hub.publish({ topic: "demo.hello", data: "for ada" });
  await rows(it.page, "for ada").click(SOON);
  await it.page.getByRole("dialog", { name: "Event" }).waitFor(SOON);
  const token = await it.hub.token({ subscribe: ["other.**"], sub: "bob" });
  const signedIn = await it.context.request.post(`${it.hub.url}/api/v1/session`, { data: { token } });
  expect(signedIn.ok()).toBe(true);
  // The page's own next connection shows the new cookie.
  await it.hub.kill();
  await pill(it.page, "Reconnecting");
  await it.hub.restart();
  await it.page.getByText("bob", { exact: true }).waitFor(LATER);
  await pill(it.page, "Live");
  expect(await it.page.getByText("for ada").count()).toBe(0);
});

test("the second Escape closed the question for new credentials, and there was no way on", async () => {
  await it.page.goto(it.hub.url);
  await it.page
    .getByLabel("Token or API key")
    .fill(await it.hub.token({ subscribe: ["demo.**"], ttl: "4s" }));
  await it.page.keyboard.press("Enter");
  const dialog = it.page.getByRole("dialog", { name: "Your session has ended" });
  await dialog.waitFor(LATER);
  for (let n = 0; n < 3; n += 1) await it.page.keyboard.press("Escape");
  await dialog.getByLabel("Token or API key").fill(await it.hub.token({ subscribe: ["demo.**"] }));
  await it.page.keyboard.press("Enter");
  await pill(it.page, "Live");
});

test("a page that could not ask whose session it is said that it connects for ever", async () => {
  await signIn(it);
  let refused = 0;
  await it.page.route("**/api/v1/session", async (route) => {
    refused += 1;
    if (refused > 1) await route.continue();
    else await route.fulfill({ status: 503, json: { code: "unavailable", detail: "not now" } });
  });
  await it.page.reload();
  await it.page.getByRole("region", { name: "Numbers" }).waitFor(LATER);
  expect(refused).toBeGreaterThan(1);
});

test("nothing happened when a refused connection was tried again", async () => {
  await signIn(it);
  let isRefused = true;
  await it.page.routeWebSocket(/real-time/, (socket) => {
    if (isRefused) void socket.close({ code: 4403, reason: "this origin is not allowed" });
    else socket.connectToServer();
  });
  await it.page.reload();
  await it.page.getByText("The hub refuses this connection").waitFor(LATER);
  expect(await barriers(it.page)).toEqual([]);
  isRefused = false;
  await it.page.getByRole("button", { name: "Try again" }).click();
  await pill(it.page, "Live");
});

test("a browser that keeps nothing shows the page all the same", async () => {
  await it.page.addInitScript(() => {
    Object.defineProperty(window, "localStorage", {
      get() {
        throw new DOMException("forbidden", "SecurityError");
      },
    });
  });
  await signIn(it);
  await it.page.getByRole("button", { name: "Theme: system" }).click();
  await it.page.getByRole("button", { name: "Theme: light" }).click();
  await it.page.getByRole("button", { name: "Theme: dark" }).waitFor(SOON);
});

test("a page that the hub has replaced offers to be loaded anew", async () => {
  await signIn(it);
  await it.hub.kill();
  await pill(it.page, "Reconnecting");
  // As a hub with another page would answer; only this one answer is not the hub's own.
  await it.page.route(`${it.hub.url}/`, async (route) => {
    const body = (await (await route.fetch()).text()).replace(
      /\/assets\/index-[^"]+\.js/,
      "/assets/index-newer.js",
    );
    await route.fulfill({ body, contentType: "text/html" });
  });
  await it.hub.restart();
  await it.page.getByText("The hub has a newer version of this page.").waitFor(LATER);
  await it.page.unroute(`${it.hub.url}/`);
  await it.page.getByRole("button", { name: "Reload" }).click();
  await it.page
    .getByText("The hub has a newer version of this page.")
    .waitFor({ state: "detached", ...LATER });
  await pill(it.page, "Live");
});
