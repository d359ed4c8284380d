// A real hub in a child process, on a free port, that a test may kill, hold, drain and start again.

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const BINARY = resolve(import.meta.dirname, "../..", process.env["PULSEHUB_BIN"] ?? "target/debug/pulsehub");

/** How long anything may take that a test waits for. */
const PATIENCE_MS = 30_000;

/** Settings of the shell that runs the tests must not reach the hub under test. */
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith("PULSEHUB_")),
);

export interface TokenRequest {
  sub?: string;
  subscribe?: string[];
  publish?: string[];
  role?: string;
  /** Such as 2s or 1h. */
  ttl?: string;
}

export class Hub {
  /** Such as http://127.0.0.1:4711. */
  url = "";
  /** The sign-in link for a browser. */
  link = "";
  readonly #folder: string;
  readonly #settings: Record<string, string>;
  #process: ChildProcess | undefined;
  #producer: string | undefined;

  private constructor(folder: string, settings: Record<string, string>) {
    this.#folder = folder;
    this.#settings = settings;
  }

  /** Settings as the environment gives them, without the prefix: `{ SOCKET_PING: "1s" }`; in `file` what only a file can say. */
  static async start(settings: Record<string, string> = {}, file?: string): Promise<Hub> {
    const folder = await mkdtemp(join(tmpdir(), "pulsehub-"));
    const config = join(folder, "pulsehub.toml");
    if (file !== undefined) await writeFile(config, file);
    const hub = new Hub(folder, file === undefined ? settings : { CONFIG: config, ...settings });
    await hub.#launch("127.0.0.1:0");
    return hub;
  }

  get socketUrl(): string {
    return `${this.url.replace(/^http/, "ws")}/ws/real-time`;
  }

  /** Ends it without warning. */
  async kill(): Promise<void> {
    await this.#signal("SIGKILL");
  }

  /** Lets it say goodbye. */
  async drain(): Promise<void> {
    await this.#signal("SIGTERM");
  }

  /** Stops it where it stands, with its sockets open. */
  pause(): void {
    this.#process?.kill("SIGSTOP");
  }

  resume(): void {
    this.#process?.kill("SIGCONT");
  }

  /** On the same address; on the same log, unless that is to be another. */
  async restart({ anew = false } = {}): Promise<void> {
    if (anew) {
      // The secret and the keys stay, so that tokens and sessions still count.
      for (const name of ["journal.db", "journal.db-wal", "journal.db-shm"]) {
        await rm(join(this.#folder, name), { force: true });
      }
    }
    await this.#launch(new URL(this.url).host);
  }

  /** Starts it again as one whose data folder a demo has filled. */
  async restartAsDemo(): Promise<void> {
    await this.kill();
    await writeFile(join(this.#folder, "demo"), "");
    await this.restart();
  }

  async token({ sub = "producer", subscribe = [], publish = ["**"], role, ttl }: TokenRequest = {}) {
    const args = ["token", "--sub", sub];
    for (const pattern of subscribe) args.push("--subscribe", pattern);
    for (const pattern of publish) args.push("--publish", pattern);
    if (role) args.push("--role", role);
    if (ttl) args.push("--ttl", ttl);
    return this.command(...args);
  }

  /** What a command of the program prints, run on this hub's data folder. */
  async command(...args: string[]): Promise<string> {
    return (await run(BINARY, [...args, "--data", this.#folder], { env: environment })).stdout.trim();
  }

  /** With curl, as the README does it. */
  async publish(events: unknown): Promise<{ accepted: number; position: string; offsets: number[] }> {
    return this.publishText(JSON.stringify(events));
  }

  /** JSON as it stands, for what no object here can hold. */
  async publishText(body: string): Promise<{ accepted: number; position: string; offsets: number[] }> {
    this.#producer ??= await this.token();
    const curl = spawn("curl", [
      ...["--silent", "--show-error", "--fail-with-body", "--max-time", "10"],
      ...["-H", `Authorization: Bearer ${this.#producer}`, "--data-binary", "@-"],
      `${this.url}/api/v1/publish`,
    ]);
    let said = "";
    for (const stream of [curl.stdout, curl.stderr]) stream.on("data", (bytes) => (said += bytes));
    curl.stdin.end(body);
    const [code] = await once(curl, "close");
    if (code !== 0) throw new Error(`publishing failed: ${said}`);
    return JSON.parse(said);
  }

  async stop(): Promise<void> {
    await this.kill();
    await rm(this.#folder, { recursive: true });
  }

  async #signal(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill(signal);
    await gone;
  }

  /** Starts the program and waits until it says where it listens, and where its sign-in link leads. */
  async #launch(listen: string): Promise<void> {
    const args = ["serve", "--listen", listen, "--data", this.#folder, "--welcome"];
    const settings = Object.entries(this.#settings).map(([name, value]) => [`PULSEHUB_${name}`, value]);
    const child = spawn(BINARY, args, { env: { ...environment, ...Object.fromEntries(settings) } });
    this.#process = child;
    const said = { out: "", err: "" };
    child.stdout.on("data", (bytes) => (said.out += bytes));
    child.stderr.on("data", (bytes) => (said.err += bytes));
    const find = (text: () => string, shape: RegExp, what: string) =>
      until(() => {
        if (child.exitCode !== null) throw new Error(`the hub ended early: ${said.err}`);
        return shape.exec(text());
      }, `${what}: ${said.err}`);
    this.url = (await find(() => said.out, /listening on (\S+)/, "the hub to listen"))[1]!;
    // It is no terminal that the hub talks to here: the link is in a file, which it names when the file is whole.
    const file = (await find(() => said.err, /Open the link in ([^,]+),/, "the sign-in link"))[1]!;
    this.link = (await readFile(file, "utf8")).trim();
  }
}

/** Waits for a condition; gives back what it found. */
export async function until<T>(look: () => T | null | undefined | false, what: string): Promise<T> {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const found = look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}
