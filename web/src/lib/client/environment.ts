// What the client needs of the world around it. Nothing of a page, so that it runs anywhere, and each part
// can be replaced, so that tests own the clock.

export interface Environment {
  WebSocket: new (url: string, protocols: string[]) => WebSocketLike;
  setTimeout(run: () => void, ms: number): unknown;
  /** Given back what `setTimeout` gave. */
  clearTimeout(timer: never): void;
  /** Milliseconds of a clock that only goes forward; every timer goes by it. */
  now(): number;
  /** Milliseconds since 1970 as this machine believes; shown, and used to notice a sleep. */
  wall(): number;
  /** From 0 up to 1. */
  random(): number;
  /** A new id for an event; must never repeat. */
  newId(): string;
  /** Told what a handler threw. */
  reportError(error: unknown): void;
}

/** The part of a WebSocket that is used: the browser's own and the `ws` package's both fit. */
export interface WebSocketLike {
  readonly readyState: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  onerror: ((event: any) => void) | null;
  send(text: string): void;
  close(code?: number, reason?: string): void;
}

/** `readyState` of a socket, as the standard numbers it. */
export const CONNECTING = 0;
export const OPEN = 1;

/** The world as it is, but for what is given. */
export function environment(given: Partial<Environment> = {}): Environment {
  const Socket = given.WebSocket ?? world.WebSocket;
  if (!Socket) throw new Error("there is no WebSocket here: give one as `environment.WebSocket`");
  return {
    setTimeout: (run, ms) => world.setTimeout(run, ms),
    clearTimeout: (timer) => world.clearTimeout(timer),
    now: () => world.performance.now(),
    wall: () => Date.now(),
    random: () => Math.random(),
    newId: () => uuid7(Date.now(), world.crypto.getRandomValues(new Uint8Array(10))),
    reportError,
    ...given,
    WebSocket: Socket,
  };
}

/** The globals that are used, named here because the types of a page are not at hand in the package. */
const world = globalThis as unknown as {
  WebSocket?: Environment["WebSocket"];
  setTimeout(run: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
  performance: { now(): number };
  crypto: { getRandomValues(bytes: Uint8Array): Uint8Array };
  TextEncoder: new () => { encode(text: string): Uint8Array };
  reportError?(error: unknown): void;
};

/** As if nobody had caught it, but without breaking who called. */
function reportError(error: unknown): void {
  if (world.reportError) {
    world.reportError(error);
    return;
  }
  world.setTimeout(() => {
    throw error;
  }, 0);
}

/** RFC 9562 section 5.7. `crypto.randomUUID` is missing from pages that came over plain HTTP. */
function uuid7(wall: number, random: Uint8Array): string {
  const bytes = [...random];
  bytes[0] = 0x70 | (bytes[0]! & 0x0f);
  bytes[2] = 0x80 | (bytes[2]! & 0x3f);
  const hex = bytes.map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const time = wall.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-${hex.slice(0, 4)}-${hex.slice(4, 8)}-${hex.slice(8)}`;
}

/** Bytes of a text in UTF-8. */
export function byteLength(text: string): number {
  return new world.TextEncoder().encode(text).length;
}
