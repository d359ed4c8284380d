// Clients of others in JavaScript, each used as its README says, until the test ends them.
//
// Reads one JSON object from its arguments and writes one JSON object a line: what each client got, and each time it has to
// come back.

import { createServer } from "node:http";
import { once } from "node:events";

import fetchEventSourceModule from "@microsoft/fetch-event-source";
import { EventSource } from "eventsource";
import { chromium } from "playwright-core";
import ReconnectingWebSocket from "reconnecting-websocket";
import { WebSocket } from "ws";

const { fetchEventSource } = fetchEventSourceModule;
const { routes, page: port } = JSON.parse(process.argv[2]);

// It was written for pages, and asks the page whether it is seen.
globalThis.window = globalThis;
globalThis.document = { addEventListener() {}, removeEventListener() {} };

function tell(client, what) {
  process.stdout.write(JSON.stringify({ client, ...what }) + "\n");
}

function listener(name, route) {
  const client = `${name} ${route.name}`;
  return {
    heard(event, id, data) {
      try {
        tell(client, { event, id, data: JSON.parse(data) });
      } catch (error) {
        tell(client, { fault: `${error}: ${data}` });
      }
    },
    failed: (why) => tell(client, { failed: String(why) }),
    fault: (why) => tell(client, { fault: String(why) }),
  };
}

async function ask(route, path, request = {}) {
  const headers = { Authorization: `Bearer ${route.token}`, "Content-Type": "application/json" };
  const answer = await fetch(route.url + path, { headers, ...request });
  if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
  return answer.json();
}

/** A ticket for a stream, which a program fetches that cannot send headers with it. */
async function ticket(route) {
  const body = JSON.stringify({ topics: ["a.*"] });
  return (await ask(route, "/api/v1/tickets", { method: "POST", body })).ticket;
}

const streamWith = (secret) => `/sse/real-time?topics=a.*&ticket=${encodeURIComponent(secret)}`;

async function eventsource(route) {
  const it = listener("eventsource", route);
  const source = new EventSource(route.url + streamWith(await ticket(route)));
  for (const name of ["message", "hub.position", "hub.gap"])
    source.addEventListener(name, (event) => it.heard(event.type, event.lastEventId, event.data));
  source.onerror = (event) =>
    source.readyState === EventSource.CLOSED
      ? it.fault(`closed for good: ${event.message}`)
      : it.failed(event.message);
}

async function microsoft(route) {
  const it = listener("fetch-event-source", route);
  await fetchEventSource(`${route.url}/sse/real-time?topics=a.*`, {
    headers: { Authorization: `Bearer ${route.token}` },
    openWhenHidden: true,
    onmessage: ({ event, id, data }) => it.heard(event || "message", id, data),
    // Without this it comes back after an error, but not when a stream ends.
    onclose: () => {
      throw new Error("the stream ended");
    },
    onerror: (error) => it.failed(error),
  });
}

/** A socket in simple mode, whose address says behind which event it goes on. */
async function reconnecting(route) {
  const it = listener("reconnecting-websocket", route);
  // Where the log is: what comes from now on is missed by no connection, however soon the first one breaks.
  let after = "";
  let lost;
  async function address() {
    try {
      if (!after) {
        after = (await ask(route, "/api/v1/history?topics=a.*&limit=1")).position;
        it.heard(lost ? "hub.gap" : "hub.position", after, JSON.stringify(lost ? { reason: lost } : {}));
      }
      const { ticket } = await ask(route, "/api/v1/tickets", { method: "POST" });
      return `${route.url.replace("http", "ws")}/ws/real-time?topics=a.*&after=${after}&ticket=${ticket}`;
    } catch {
      return `${route.url.replace("http", "ws")}/ws/real-time`; // refused, whereupon it asks again
    }
  }
  const pause = { minReconnectionDelay: 200, maxReconnectionDelay: 500 };
  const socket = new ReconnectingWebSocket(address, [], { WebSocket, ...pause });
  socket.onmessage = ({ data }) => {
    after = JSON.parse(data).position;
    it.heard("message", after, data);
  };
  socket.onclose = ({ code, reason }) => {
    // Events are missing: what there is now is read anew.
    if (code === 4410) [after, lost] = ["", reason.split(": ").at(-1)];
    it.failed(`closed with ${code} ${reason}`);
  };
  socket.onerror = ({ message }) => it.failed(message);
}

/** In a page: an EventSource, which tells what it got by `tell`. */
function listenInPage(path) {
  const source = new EventSource(path);
  for (const name of ["message", "hub.position", "hub.gap"])
    source.addEventListener(name, (event) => window.tell("heard", event.type, event.lastEventId, event.data));
  source.onerror = () => {
    const isClosed = source.readyState === EventSource.CLOSED;
    window.tell(isClosed ? "fault" : "failed", isClosed ? "closed for good" : "broken");
  };
}

async function openPage(browser, name, route, address) {
  const it = listener(name, route);
  const page = await browser.newPage();
  await page.exposeFunction("tell", (what, ...words) => it[what](...words));
  await page.goto(address);
  return page;
}

/** A page of the hub's own origin, whose cookie counts. */
async function cookie(browser, route) {
  const page = await openPage(browser, "chromium with a cookie", route, `${route.url}/healthz`);
  await page.evaluate(async (token) => {
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify({ token });
    const answer = await fetch("/api/v1/session", { method: "POST", headers, body });
    if (!answer.ok) throw new Error(`not signed in: ${answer.status}`);
  }, route.token);
  await page.evaluate(listenInPage, "/sse/real-time?topics=a.*");
}

/** A page of another origin, with a ticket. */
async function foreign(browser, route) {
  const page = await openPage(browser, "chromium with a ticket", route, `http://127.0.0.1:${port}/`);
  await page.evaluate(listenInPage, route.url + streamWith(await ticket(route)));
}

const server = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end("<!doctype html>"));
await once(server.listen(port, "127.0.0.1"), "listening");
for (const client of [eventsource, microsoft, reconnecting])
  for (const route of routes) client(route).catch((error) => listener(client.name, route).fault(error));

const executablePath = process.env["CHROMIUM"] ?? "/usr/bin/chromium";
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
for (const client of [cookie, foreign])
  for (const route of routes) {
    // Cookies know no ports: each page has a jar of its own.
    const context = await browser.newContext();
    client(context, route).catch((error) => listener(`chromium ${client.name}`, route).fault(error));
  }

process.stdin.resume().on("end", async () => {
  await browser.close();
  process.exit();
});
