// Requests to the hub's own HTTP side, with the session's cookie.

/** A refusal as the hub words it (RFC 9457), or the network's. */
export class ApiError extends Error {
  /** HTTP status; 0 when the hub could not be reached. */
  readonly status: number;
  /** The hub's stable code. */
  readonly code: string;
  /** The grants that are missing. */
  readonly missing: readonly string[];
  /** When asking again makes sense, in seconds. */
  readonly retryAfter: number | undefined;

  constructor(
    status: number,
    code: string,
    message: string,
    missing: readonly string[] = [],
    retryAfter?: number,
  ) {
    super(message);
    this.status = status;
    this.code = code;
    this.missing = missing;
    this.retryAfter = retryAfter;
  }
}

/** Longer than the hub lets a request wait, so that its own answer comes first. */
const TIMEOUT = 30_000;

/** Sends a request; answers other than 2xx are thrown as `ApiError`. */
export async function request(method: string, path: string, body?: unknown): Promise<Response> {
  const init: RequestInit = { method, signal: AbortSignal.timeout(TIMEOUT) };
  if (body !== undefined) {
    init.body = JSON.stringify(body);
    init.headers = { "content-type": "application/json" };
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new ApiError(0, "unreachable", "The hub does not answer.");
  }
  if (response.ok) return response;
  throw await problem(response);
}

/** The JSON of an answer. Its shape is the hub's word, which docs/protocol.md gives. */
export async function get<T>(path: string): Promise<T> {
  return (await request("GET", path)).json() as Promise<T>;
}

async function problem(response: Response): Promise<ApiError> {
  const told: unknown = await response.json().catch(() => null);
  const fields = typeof told === "object" && told !== null ? (told as Record<string, unknown>) : {};
  const text = (name: string) => (typeof fields[name] === "string" ? fields[name] : undefined);
  const missing = Array.isArray(fields["missing"]) ? fields["missing"].map(String) : [];
  const retryAfter = Number(response.headers.get("retry-after") ?? Number.NaN);
  return new ApiError(
    response.status,
    text("code") ?? `http_${response.status}`,
    text("detail") ?? text("title") ?? `The hub answered ${response.status}.`,
    missing,
    Number.isNaN(retryAfter) ? undefined : retryAfter,
  );
}
