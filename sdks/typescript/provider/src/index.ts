import { SandboxDestroyedError } from "sandbox-agent";
import type { SandboxAgentStartOptions } from "sandbox-agent";

/** What `SandboxAgent.start({ sandbox })` takes. */
export type SandboxProvider = SandboxAgentStartOptions["sandbox"];

/** Where the server is and what its sandboxes are like. */
export interface WoodfrogProviderOptions {
  /** `https://host`, without `/api/v1`. */
  baseUrl: string;
  /** A key of the workspace that the sandboxes belong to. */
  apiKey: string;
  /** A template's id or name, or a snapshot's; the server's `base` if absent. */
  template?: string;
  /** Environment of every process in the sandbox. */
  env?: Record<string, string>;
  metadata?: Record<string, string>;
  /** Seconds until its time is over; it lives until it is destroyed if absent. */
  timeoutSeconds?: number;
  /** What happens then. Asleep it costs no memory, and any access wakes it. */
  onTimeout?: "hibernate" | "delete";
  /** What `pauseSandbox()` does: on disk (the default), or frozen in place, which is faster both ways. */
  pause?: "hibernate" | "freeze";
  /** The folder of sessions that name none. */
  defaultCwd?: string;
  /** Seconds that making or waking a sandbox may take. */
  patienceSeconds?: number;
  fetch?: typeof globalThis.fetch;
}

/** A reply that is no success. `code` is what the server calls it. */
export class WoodfrogError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
    this.name = "WoodfrogError";
  }
}

interface Sandbox {
  id: string;
  state: string;
}

/** The name in sandbox ids: `woodfrog/<id>`. */
export const NAME = "woodfrog";

const GONE = new Set(["sandbox_not_found", "not_found"]);
const AGAIN = new Set(["transitioning", "idempotency_in_progress", "sandbox_capacity_unavailable", "rate_limited", "guest_unresponsive"]);
const FIRST_DELAY_MS = 100;
const LAST_DELAY_MS = 2_000;

/**
 * Woodfrog sandboxes for the SDK: each has the agent API at `<baseUrl>/agent/<id>`, with the API key
 * as its token. Nothing has to be installed or started in the sandbox.
 */
export function woodfrog(options: WoodfrogProviderOptions): SandboxProvider & { getToken(id: string): Promise<string> } {
  const api = new Api(options);
  const { pause = "hibernate" } = options;
  if (pause !== "hibernate" && pause !== "freeze") throw new TypeError("pause must be 'hibernate' or 'freeze'");
  const remove = (id: string) => api.remove(id);
  const wake = (id: string) => unlessGone(id, () => api.send("POST", `/sandboxes/${encodeURIComponent(id)}/resume`, {}));
  return {
    name: NAME,
    defaultCwd: options.defaultCwd ?? "/home/user",
    create: () => api.create(options),
    destroy: remove,
    kill: remove,
    async reconnect(id) {
      const sandbox = (await unlessGone(id, () => api.send("GET", `/sandboxes/${encodeURIComponent(id)}`))) as Sandbox;
      if (sandbox.state === "deleting") throw new SandboxDestroyedError(id, NAME);
      await wake(id);
    },
    async pause(id) {
      const how = pause === "freeze" ? "pause" : "hibernate";
      await unlessGone(id, () => api.send("POST", `/sandboxes/${encodeURIComponent(id)}/${how}`, how === "hibernate" ? {} : undefined));
    },
    async ensureServer(id) {
      await wake(id);
    },
    getUrl: async (id) => `${api.base}/agent/${encodeURIComponent(id)}`,
    getToken: async () => options.apiKey,
  };
}

async function unlessGone<T>(id: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (cause) {
    if (cause instanceof WoodfrogError && GONE.has(cause.code)) throw new SandboxDestroyedError(id, NAME, { cause });
    throw cause;
  }
}

class Api {
  readonly base: string;
  readonly #key: string;
  readonly #fetch: typeof globalThis.fetch;
  readonly #patience: number;

  constructor({ baseUrl, apiKey, fetch, patienceSeconds = 120 }: WoodfrogProviderOptions) {
    if (!/^https?:\/\//.test(baseUrl)) throw new TypeError("baseUrl must begin with http:// or https://");
    if (!apiKey) throw new TypeError("apiKey must not be empty");
    if (!(patienceSeconds > 0)) throw new TypeError("patienceSeconds must be more than 0");
    this.base = baseUrl.replace(/\/+$/, "");
    this.#key = apiKey;
    this.#fetch = fetch ?? globalThis.fetch.bind(globalThis);
    this.#patience = patienceSeconds * 1000;
  }

  async create({ template, env, metadata, timeoutSeconds, onTimeout = "hibernate" }: WoodfrogProviderOptions): Promise<string> {
    const body: Record<string, unknown> = { on_timeout: onTimeout, auto_resume: onTimeout === "hibernate" };
    if (template !== undefined) body.template = template;
    if (env !== undefined) body.env = env;
    if (metadata !== undefined) body.metadata = metadata;
    if (timeoutSeconds !== undefined) body.timeout_seconds = timeoutSeconds;
    // However often it is sent, one sandbox is made.
    const headers = { "idempotency-key": globalThis.crypto.randomUUID() };
    const { id } = (await this.send("POST", "/sandboxes", body, headers)) as Sandbox;
    return id;
  }

  async remove(id: string): Promise<void> {
    try {
      await this.send("DELETE", `/sandboxes/${encodeURIComponent(id)}`);
    } catch (error) {
      if (!(error instanceof WoodfrogError) || !GONE.has(error.code)) throw error;
    }
  }

  /** Sends a request, again while the server says that a moment later is better. */
  async send(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<unknown> {
    const end = Date.now() + this.#patience;
    for (let delay = FIRST_DELAY_MS; ; delay = Math.min(2 * delay, LAST_DELAY_MS)) {
      try {
        return await this.#once(method, path, body, headers, Math.max(1, end - Date.now()));
      } catch (error) {
        const again = error instanceof WoodfrogError && AGAIN.has(error.code);
        if (!again || Date.now() + delay > end) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, delay));
    }
  }

  async #once(method: string, path: string, body: unknown, more: Record<string, string>, timeoutMs: number): Promise<unknown> {
    const headers: Record<string, string> = { accept: "application/json", authorization: `Bearer ${this.#key}`, ...more };
    const init: RequestInit = { method, headers, signal: AbortSignal.timeout(timeoutMs) };
    if (body !== undefined) {
      headers["content-type"] = "application/json";
      init.body = JSON.stringify(body);
    }
    const response = await this.#fetch(`${this.base}/api/v1${path}`, init);
    const text = await response.text();
    if (response.ok) return text ? JSON.parse(text) : undefined;
    let problem: { code?: unknown; detail?: unknown } = {};
    try {
      problem = JSON.parse(text) as typeof problem;
    } catch {
      // Something between us and the server answered in its own words.
    }
    const detail = typeof problem.detail === "string" ? problem.detail : `HTTP ${response.status}`;
    throw new WoodfrogError(response.status, typeof problem.code === "string" ? problem.code : "unknown", detail);
  }
}
