// The client as a package: packed in a clean folder as its README says, installed elsewhere, type-checked and run there
// against a hub.

import { execFile } from "node:child_process";
import { cp, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { afterAll, beforeAll, expect, test } from "vitest";

import { Hub } from "./hub.ts";

const run = promisify(execFile);
const WEB = join(import.meta.dirname, "..");

let hub: Hub;
let folder: string;
beforeAll(async () => {
  hub = await Hub.start();
  folder = await mkdtemp(join(tmpdir(), "pulsehub-client-"));
  // What a fresh clone has: nothing installed, nothing built.
  const clone = join(folder, "clone");
  const isOurs = (path: string) => !/node_modules|\/dist\b|\.tgz$/.test(path.slice(WEB.length));
  for (const part of ["client", "src/lib", "tsconfig.json"])
    await cp(join(WEB, part), join(clone, "web", part), { recursive: true, filter: isOurs });
  await cp(join(WEB, "../LICENSE"), join(clone, "LICENSE"));
  const packed = await run("npm", ["pack", "--json", "--pack-destination", folder], {
    cwd: join(clone, "web/client"),
  });
  const [{ filename, files }] = JSON.parse(packed.stdout.slice(packed.stdout.indexOf("[\n")));
  const names = files.map(({ path }: { path: string }) => path);
  expect(names).toEqual(
    expect.arrayContaining(["dist/client.js", "dist/client.d.ts", "LICENSE", "README.md"]),
  );
  await writeFile(join(folder, "package.json"), '{"type":"module"}');
  await run("npm", ["install", "--no-audit", "--no-fund", "--offline", join(folder, filename)], {
    cwd: folder,
  });
  for (const name of ["ws", "@types"])
    await symlink(join(WEB, "node_modules", name), join(folder, "node_modules", name));
});
afterAll(async () => {
  await hub.stop();
  await rm(folder, { recursive: true });
});

const PROGRAM = `
import { Client, type HubEvent } from "pulsehub-client";
import { WebSocket } from "ws";

const [url = "", token = ""] = process.argv.slice(2);
const client = new Client({ url, getToken: () => token, environment: { WebSocket } });
client.subscribe(
  { topics: ["a.*"], replay: { last: 1 } },
  {
    events: ({ events }: { events: HubEvent[] }) => {
      console.log(events[0]?.data);
      client.stop();
    },
  },
);
client.start();
`;

test("a program elsewhere type-checks with it, runs with it, and ends when it is stopped", async () => {
  await writeFile(join(folder, "program.ts"), PROGRAM);
  const options = {
    module: "NodeNext",
    target: "ES2022",
    strict: true,
    types: ["node"],
    skipLibCheck: false,
  };
  await writeFile(
    join(folder, "tsconfig.json"),
    JSON.stringify({ compilerOptions: options, files: ["program.ts"] }),
  );
  await hub.publish({ topic: "a.b", data: "it works" });
  const token = await hub.token({ subscribe: ["a.**"] });
  await run("node", [join(WEB, "node_modules/typescript/bin/tsc"), "-p", folder]);
  const program = await run("node", ["program.js", hub.socketUrl, token], { cwd: folder, timeout: 30_000 });
  expect(program).toEqual({ stdout: "it works\n", stderr: "" });
});

test("a mistake in its use is found", async () => {
  await writeFile(join(folder, "program.ts"), PROGRAM.replace('topics: ["a.*"]', "topics: 7"));
  const checked = run("node", [join(WEB, "node_modules/typescript/bin/tsc"), "-p", folder, "--noEmit"]);
  await expect(checked).rejects.toMatchObject({ stdout: expect.stringContaining("TS2322") });
});
