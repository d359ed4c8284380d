// What the client shows the hub: a token that is kept until it is near its end, a ticket for each
// connection, or nothing (a session cookie goes by itself).

import type { Environment } from "./environment.ts";
import { HubError } from "./error.ts";

/** The share of a token's life after which another is asked for. */
const SPENT = 0.8;
/** A token that is nearly over when it comes must not be asked for in a busy loop. */
const SHORTEST_MS = 500;
/** Time for whoever gives the token. */
const GIVE_MS = 30_000;

export interface CredentialsOptions {
  url: string;
  getToken?: (() => string | Promise<string>) | undefined;
  getTicket?: (() => string | Promise<string>) | undefined;
}

export class Credentials {
  readonly #environment: Environment;
  readonly #options: CredentialsOptions;
  #token: string | undefined;
  /** When the token is to be replaced; unknown until the hub has told how long it lives. */
  #renewAt: number | undefined;

  constructor(environment: Environment, options: CredentialsOptions) {
    this.#environment = environment;
    this.#options = options;
  }

  /** Whether others can be had. */
  get areGiven(): boolean {
    return this.#options.getToken !== undefined || this.#options.getTicket !== undefined;
  }

  /** Whether a newer token can be sent on an open connection. */
  get canRefresh(): boolean {
    return this.#options.getToken !== undefined && this.#options.getTicket === undefined;
  }

  /** When the token is to be replaced. */
  get renewAt(): number {
    return this.#renewAt ?? Infinity;
  }

  /** The address and the token for a connection. */
  async forConnection(): Promise<{ url: string; token?: string }> {
    const { url, getTicket } = this.#options;
    if (getTicket) {
      const ticket = await this.#given(getTicket);
      return { url: `${url}${url.includes("?") ? "&" : "?"}ticket=${encodeURIComponent(ticket)}` };
    }
    if (!this.canRefresh) return { url };
    const kept = this.#environment.now() < this.renewAt ? this.#token : undefined;
    return { url, token: kept ?? (await this.renew()) };
  }

  /** Gets a newer token. */
  async renew(): Promise<string> {
    const token = await this.#given(this.#options.getToken ?? (() => ""));
    this.#renewAt = undefined;
    this.#token = token;
    return token;
  }

  /** The hub has told how many seconds are left. */
  lives(seconds: number | undefined): void {
    if (!this.canRefresh || this.#renewAt !== undefined) return;
    const left = seconds === undefined ? Infinity : Math.max(SHORTEST_MS, seconds * 1000 * SPENT);
    this.#renewAt = this.#environment.now() + left;
  }

  /** They were refused. */
  forget(): void {
    this.#token = undefined;
    this.#renewAt = undefined;
  }

  #given(give: () => string | Promise<string>): Promise<string> {
    return new Promise((resolve, reject) => {
      const timer = this.#environment.setTimeout(
        () => reject(new HubError("unavailable", "no credentials were given in time", true)),
        GIVE_MS,
      );
      const asked = new Promise<string>((given) => given(give()));
      asked
        .then((text) => {
          if (typeof text !== "string" || text === "")
            throw new HubError("unauthorized", "no credentials were given");
          resolve(text);
        })
        .catch(reject)
        .finally(() => this.#environment.clearTimeout(timer as never));
    });
  }
}
