// A Redis in a child process, on a free port, for hubs that share one.
import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";

import { until } from "./hub";

export class Redis {
  readonly url: string;
  readonly #process: ChildProcess;

  private constructor(port: number, child: ChildProcess) {
    this.url = `redis://127.0.0.1:${port}`;
    this.#process = child;
  }

  /** One that keeps nothing on disk. */
  static async start(): Promise<Redis> {
    const port = await freePort();
    const child = spawn("redis-server", [
      ...["--port", String(port), "--bind", "127.0.0.1"],
      ...["--save", "", "--appendonly", "no"],
    ]);
    let said = "";
    child.stdout.on("data", (bytes) => (said += bytes));
    await until(() => {
      if (child.exitCode !== null) throw new Error(`Redis ended early: ${said}`);
      return said.includes("Ready to accept connections");
    }, "Redis");
    return new Redis(port, child);
  }

  async stop(): Promise<void> {
    const gone = once(this.#process, "exit");
    this.#process.kill("SIGKILL");
    await gone;
  }
}

/**
 * A port on which nobody listens, below those that the system gives to outgoing connections: one of these may be some
 * client's by the time that Redis starts.
 */
async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 30_000);
    const server = createServer().listen(port, "127.0.0.1");
    const found = await once(server, "listening").then(
      () => true,
      () => false,
    );
    if (!found) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}
