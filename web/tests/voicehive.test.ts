// VoiceHive's snippet for the browser, as its documents have it, on a page of another origin, with the settings of
// docs/guides/voicehive.md.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { resolve } from "node:path";

import { expect, test } from "vitest";

import { SOON, stage } from "./browser";
import { Hub } from "./hub";

const it = stage();

const guide = readFileSync(resolve(import.meta.dirname, "../../docs/guides/voicehive.md"), "utf8");

/** The guide's only block of this language, with the ports of the test. */
function shown(language: string, hub: string, page: string): string {
  const block = guide.split(`\`\`\`${language}\n`)[1]?.split("```")[0];
  if (block === undefined) throw new Error(`the guide has no ${language}`);
  return block.replaceAll(":8080", `:${hub}`).replaceAll(":3000", `:${page}`);
}

/** The documents' own lines; only the address is the guide's. */
const snippet = (address: string) => `
// Connect to real-time updates
const ws = new WebSocket('${address}/api/dashboard/ws/real-time');

ws.onmessage = (event) => {
  const metrics = JSON.parse(event.data);
  updateDashboard(metrics);
};
`;

interface Shown {
  total_calls: number;
  active_calls: number | null;
  success_rate: number | null;
  timestamp: string;
}

test("the snippet gets what it is now, and then each change", async () => {
  // The page's port must be known before the hub that lets it in.
  let address = "";
  const pages = createServer((_, answer) => {
    answer.setHeader("content-type", "text/html; charset=utf-8");
    answer.end(
      `<!doctype html><title>VoiceHive</title><script>
      const shown = [];
      const updateDashboard = (metrics) => shown.push(metrics);
      ${snippet(address)}</script>`,
    );
  });
  await new Promise<void>((listening) => pages.listen(0, "127.0.0.1", listening));
  const { port } = pages.address() as AddressInfo;
  const hub = await Hub.start({}, shown("toml", "", `${port}`));
  try {
    const environment = shown("ini", new URL(hub.url).port, "");
    const setting = (name: string) => environment.split(`${name}=`)[1]?.split("\n")[0] ?? "";
    address = setting("NEXT_PUBLIC_WS_URL");
    await it.page.goto(`http://localhost:${port}`);
    const got = () => it.page.evaluate<Shown[]>("shown");
    expect(await got()).toEqual([]);
    const call = (status: string) => ({
      topic: "voicehive.calls",
      data: { duration: 252, status, agent: "roxy" },
    });
    await hub.publish([
      call("success"),
      {
        topic: "voicehive.metrics",
        type: "metrics",
        data: { memory_usage: 72, cpu_usage: 35, active_calls: 8 },
      },
    ]);
    await expect
      .poll(async () => (await got()).at(-1), SOON)
      .toMatchObject({ total_calls: 1, active_calls: 8, success_rate: 100 });
    await hub.publish([call("error")]);
    await expect
      .poll(async () => (await got()).at(-1), SOON)
      .toMatchObject({ total_calls: 2, active_calls: 8, success_rate: 50 });

    // And its requests, which the page's script makes too.
    const read = (path: string) =>
      it.page.evaluate(
        async (url) => (await fetch(url)).json(),
        `${setting("NEXT_PUBLIC_API_URL")}/api/dashboard/${path}`,
      );
    expect(await read("metrics")).toMatchObject({ total_calls: 2, success_rate: 50, avg_duration: 4.2 });
    expect(await read("call-volume?hours=1")).toHaveLength(12);
  } finally {
    pages.close();
    await hub.stop();
  }
});
