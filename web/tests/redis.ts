// A Redis in a child process, on a free port, for hubs that share one.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";

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

/** Somebody else may take it in between; then the start fails and says so. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
