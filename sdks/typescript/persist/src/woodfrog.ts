import type { SessionEvent, SessionRecord } from "sandbox-agent";
import { PersistDriver, type Backend, type DriverOptions } from "./driver.js";
import { EventIdConflictError, EventIndexConflictError, InvalidInputError } from "./errors.js";
import type { Range } from "./page.js";

/** Where the server is. */
export interface WoodfrogOptions extends DriverOptions {
  /** `https://host`, without `/api/v1`. */
  baseUrl: string;
  /** A key of the workspace that the sessions belong to. */
  apiKey: string;
  fetch?: typeof globalThis.fetch;
  /** Milliseconds until a request is given up. */
  timeoutMs?: number;
}

/** A reply that is no success. `code` is what the server calls it, `pointer` the field to blame. */
export class WoodfrogError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly pointer: string | undefined = undefined,
  ) {
    super(detail);
    this.name = "WoodfrogError";
  }
}

/** Sessions in a Woodfrog server, over the routes of docs/design/persist-api.md. */
export function woodfrog(options: WoodfrogOptions): PersistDriver {
  return new PersistDriver(new WoodfrogBackend(options), options);
}

/** The most items the server gives at once. */
const MAX_PAGE = 1000;

class WoodfrogBackend implements Backend {
  readonly #base: string;
  readonly #key: string;
  readonly #fetch: typeof globalThis.fetch;
  readonly #timeout: number;

  constructor({ baseUrl, apiKey, fetch, timeoutMs = 30_000 }: WoodfrogOptions) {
    if (!/^https?:\/\//.test(baseUrl)) throw new InvalidInputError("baseUrl must begin with http:// or https://");
    if (!apiKey) throw new InvalidInputError("apiKey must not be empty");
    this.#base = `${baseUrl.replace(/\/+$/, "")}/api/v1/persist/sessions`;
    this.#key = apiKey;
    this.#fetch = fetch ?? globalThis.fetch.bind(globalThis);
    this.#timeout = timeoutMs;
  }

  async getRecord(id: string): Promise<SessionRecord | undefined> {
    const response = await this.#send("GET", `/${encodeURIComponent(id)}`);
    if (response.status === 404) return void (await response.body?.cancel());
    return (await read(response)) as SessionRecord;
  }

  async putRecord(record: SessionRecord): Promise<void> {
    await read(await this.#send("PUT", `/${encodeURIComponent(record.id)}`, record));
  }

  listRecords(range: Range): Promise<SessionRecord[]> {
    return this.#list<SessionRecord>("", range);
  }

  listEvents(sessionId: string, range: Range): Promise<SessionEvent[]> {
    return this.#list<SessionEvent>(`/${encodeURIComponent(sessionId)}/events`, range);
  }

  async insert(event: SessionEvent): Promise<void> {
    const response = await this.#send("POST", `/${encodeURIComponent(event.sessionId)}/events`, event);
    try {
      await read(response);
    } catch (error) {
      if (!(error instanceof WoodfrogError) || error.status !== 409) throw error;
      if (error.pointer === "#/id") throw new EventIdConflictError(event.id);
      throw new EventIndexConflictError(event.sessionId, event.eventIndex);
    }
  }

  async lastIndex(sessionId: string): Promise<number> {
    const response = await this.#send("GET", `/${encodeURIComponent(sessionId)}/events?limit=1&order=desc`);
    const { items } = (await read(response)) as { items: SessionEvent[] };
    return items[0]?.eventIndex ?? 0;
  }

  async remove(sessionId: string): Promise<void> {
    const response = await this.#send("DELETE", `/${encodeURIComponent(sessionId)}`);
    if (response.status === 404) return void (await response.body?.cancel());
    await read(response);
  }

  async close(): Promise<void> {}

  /** The server's pages are bounded; one of ours may take several of them. */
  async #list<T>(path: string, { after, offset, limit }: Range): Promise<T[]> {
    const found: T[] = [];
    let cursor = after ? `k1:${after.number}:${after.id}` : offset > 0 ? String(offset) : undefined;
    while (found.length <= limit) {
      const query = new URLSearchParams({ limit: String(Math.min(MAX_PAGE, limit + 1 - found.length)) });
      if (cursor !== undefined) query.set("cursor", cursor);
      const { items, nextCursor } = (await read(await this.#send("GET", `${path}?${query}`))) as { items: T[]; nextCursor?: string };
      found.push(...items);
      if (nextCursor === undefined) break;
      cursor = nextCursor;
    }
    return found;
  }

  #send(method: string, path: string, body?: unknown): Promise<Response> {
    const headers: Record<string, string> = { accept: "application/json", authorization: `Bearer ${this.#key}` };
    const init: RequestInit = { method, headers, signal: AbortSignal.timeout(this.#timeout) };
    if (body !== undefined) {
      headers["content-type"] = "application/json";
      init.body = JSON.stringify(body);
    }
    return this.#fetch(this.#base + path, init);
  }
}

async function read(response: Response): Promise<unknown> {
  const text = await response.text();
  if (response.ok) return text ? JSON.parse(text) : undefined;
  let problem: { code?: unknown; detail?: unknown; errors?: { pointer?: string }[] } = {};
  try {
    problem = JSON.parse(text) as typeof problem;
  } catch {
    // Something between us and the server answered in its own words.
  }
  const detail = typeof problem.detail === "string" ? problem.detail : `HTTP ${response.status}`;
  throw new WoodfrogError(response.status, typeof problem.code === "string" ? problem.code : "unknown", detail, problem.errors?.[0]?.pointer);
}
