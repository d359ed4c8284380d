// A real hub in a child process, as `make run` starts it, on a free port.

import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const BINARY = resolve(import.meta.dirname, "../..", process.env.PULSEHUB_BIN ?? "target/debug/pulsehub");

// Settings of the shell that runs the tests must not reach the hub under test.
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith("PULSEHUB_")),
);

export class Hub {
  static async start() {
    const hub = new Hub();
    hub.folder = await mkdtemp(join(tmpdir(), "pulsehub-"));
    await hub.launch("127.0.0.1:0");
    return hub;
  }

  // Starts the program and waits until it says where it listens, and where its sign-in link leads.
  async launch(listen) {
    const args = ["serve", "--listen", listen, "--data", this.folder, "--welcome"];
    this.process = spawn(BINARY, args, { env: environment });
    const said = { out: "", err: "" };
    this.process.stdout.on("data", (bytes) => { said.out += bytes; });
    this.process.stderr.on("data", (bytes) => { said.err += bytes; });
    this.url = await waitFor(() => said.out.match(/listening on (\S+)/)?.[1], "the hub to listen", () => said.err);
    this.link = await waitFor(() => said.err.match(/http:\S+#code=\S+/)?.[0], "the sign-in link", () => said.err);
  }

  async kill() {
    this.process.kill("SIGKILL");
    await once(this.process, "exit");
  }

  // On the same folder and the same address.
  async restart() {
    await this.launch(new URL(this.url).host);
  }

  async token() {
    const args = ["token", "--data", this.folder, "--sub", "producer", "--publish", "**"];
    return (await run(BINARY, args, { env: environment })).stdout.trim();
  }

  // With curl, as the README does it.
  async publish(event) {
    const { stdout } = await run("curl", [
      "--silent", "--show-error", "--fail-with-body", "--max-time", "10",
      "-H", `Authorization: Bearer ${await this.token()}`,
      "-d", JSON.stringify(event),
      `${this.url}/api/v1/publish`,
    ]);
    return JSON.parse(stdout);
  }

  async stop() {
    if (this.process.exitCode === null && this.process.signalCode === null) await this.kill();
    await rm(this.folder, { recursive: true });
  }
}

async function waitFor(look, what, explain) {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const found = look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}: ${explain()}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}
