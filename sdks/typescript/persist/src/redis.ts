import type { SessionEvent, SessionRecord } from "sandbox-agent";
import { checkOptions, PersistDriver, type Backend, type DriverOptions } from "./driver.js";
import { EventIdConflictError, EventIndexConflictError, InvalidInputError } from "./errors.js";
import type { Range } from "./page.js";
import * as scripts from "./redis-scripts.js";

/** What is needed of a client: that of @redis/client has it. */
export interface RedisClient {
  eval(script: string, options: { keys: string[]; arguments: string[] }): Promise<unknown>;
}

/** Where the sessions are. */
export interface RedisOptions extends DriverOptions {
  /** `redis://…`; the driver connects. */
  url?: string;
  /** A client that is connected already and stays so. */
  client?: RedisClient;
  /** What the keys begin with. */
  prefix?: string;
}

/**
 * Sessions in Redis; every operation is one script, so it happens as a whole. An event is as durable
 * as the server is told to be: `appendonly yes` and `appendfsync always` to have it on disk when it
 * is said to be stored. All keys of an operation are in one slot of a cluster.
 */
export async function redis(options: RedisOptions = {}): Promise<PersistDriver> {
  const { prefix = "sandbox-agent:" } = options;
  checkOptions(options);
  if (/[{}]/.test(prefix)) throw new InvalidInputError("a prefix must not have braces");
  if (options.client) return new PersistDriver(new RedisBackend(options.client, prefix, async () => {}), options);
  if (options.url === undefined) throw new InvalidInputError("redis needs the option `url` or `client`");
  const { createClient } = await import("@redis/client");
  const client = createClient({ url: options.url, socket: { reconnectStrategy: (tries) => Math.min(50 * 2 ** tries, 5_000) } });
  // Each operation reports its own failure.
  client.on("error", () => {});
  await client.connect();
  const close = async () => void (await client.close());
  return new PersistDriver(new RedisBackend(client as unknown as RedisClient, prefix, close), options);
}

class RedisBackend implements Backend {
  readonly #client: RedisClient;
  readonly #prefix: string;
  readonly #close: () => Promise<void>;

  constructor(client: RedisClient, prefix: string, close: () => Promise<void>) {
    this.#client = client;
    this.#prefix = prefix;
    this.#close = close;
  }

  async getRecord(id: string): Promise<SessionRecord | undefined> {
    const text = await this.#run(scripts.GET, this.#sessions(), [id]);
    return typeof text === "string" ? (JSON.parse(text) as SessionRecord) : undefined;
  }

  async putRecord(record: SessionRecord): Promise<void> {
    await this.#run(scripts.PUT, this.#sessions(), [record.id, String(record.createdAt), JSON.stringify(record)]);
  }

  async listRecords(range: Range): Promise<SessionRecord[]> {
    return this.#list<SessionRecord>(scripts.LIST, this.#sessions(), range);
  }

  async listEvents(sessionId: string, range: Range): Promise<SessionEvent[]> {
    return this.#list<SessionEvent>(scripts.LIST, this.#events(sessionId), range);
  }

  async insert(event: SessionEvent): Promise<void> {
    const values = [event.id, String(event.eventIndex), JSON.stringify(event)];
    const outcome = await this.#run(scripts.INSERT, this.#events(event.sessionId), values);
    if (outcome === "index") throw new EventIndexConflictError(event.sessionId, event.eventIndex);
    if (outcome === "id") throw new EventIdConflictError(event.id);
  }

  async lastIndex(sessionId: string): Promise<number> {
    return Number(await this.#run(scripts.LAST, this.#events(sessionId), []));
  }

  async remove(sessionId: string): Promise<void> {
    await this.#run(scripts.REMOVE_EVENTS, this.#events(sessionId), []);
    await this.#run(scripts.REMOVE, this.#sessions(), [sessionId]);
  }

  close(): Promise<void> {
    return this.#close();
  }

  async #list<T>(script: string, keys: string[], { after, offset, limit }: Range): Promise<T[]> {
    const values = [String(limit + 1), String(offset), ...(after ? [String(after.number), after.id] : [])];
    return ((await this.#run(script, keys, values)) as string[]).map((text) => JSON.parse(text) as T);
  }

  #run(script: string, keys: string[], values: string[]): Promise<unknown> {
    return this.#client.eval(script, { keys, arguments: values });
  }

  /** The order and the contents of sessions. */
  #sessions(): string[] {
    return [`${this.#prefix}{sessions}:order`, `${this.#prefix}{sessions}:records`];
  }

  /** The order and the contents of a session's events. */
  #events(sessionId: string): string[] {
    const tag = encodeURIComponent(sessionId);
    return [`${this.#prefix}events:{${tag}}:order`, `${this.#prefix}events:{${tag}}:records`];
  }
}
