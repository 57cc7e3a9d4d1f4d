import { checkOptions, PersistDriver } from "./driver.js";
import { EventIdConflictError, EventIndexConflictError, InvalidInputError } from "./errors.js";
import * as scripts from "./redis-scripts.js";
/**
 * Sessions in Redis; every operation is one script, so it happens as a whole. An event is as durable
 * as the server is told to be: `appendonly yes` and `appendfsync always` to have it on disk when it
 * is said to be stored. All keys of an operation are in one slot of a cluster.
 */
export async function redis(options = {}) {
    const { prefix = "sandbox-agent:" } = options;
    checkOptions(options);
    if (/[{}]/.test(prefix))
        throw new InvalidInputError("a prefix must not have braces");
    if (options.client)
        return new PersistDriver(new RedisBackend(options.client, prefix, async () => { }), options);
    if (options.url === undefined)
        throw new InvalidInputError("redis needs the option `url` or `client`");
    const { createClient } = await import("@redis/client");
    const client = createClient({ url: options.url, socket: { reconnectStrategy: (tries) => Math.min(50 * 2 ** tries, 5_000) } });
    // Each operation reports its own failure.
    client.on("error", () => { });
    await client.connect();
    const close = async () => void (await client.close());
    return new PersistDriver(new RedisBackend(client, prefix, close), options);
}
class RedisBackend {
    #client;
    #prefix;
    #close;
    constructor(client, prefix, close) {
        this.#client = client;
        this.#prefix = prefix;
        this.#close = close;
    }
    async getRecord(id) {
        const text = await this.#run(scripts.GET, this.#sessions(), [id]);
        return typeof text === "string" ? JSON.parse(text) : undefined;
    }
    async putRecord(record) {
        await this.#run(scripts.PUT, this.#sessions(), [record.id, String(record.createdAt), JSON.stringify(record)]);
    }
    async listRecords(range) {
        return this.#list(scripts.LIST, this.#sessions(), range);
    }
    async listEvents(sessionId, range) {
        return this.#list(scripts.LIST, this.#events(sessionId), range);
    }
    async insert(event) {
        const values = [event.id, String(event.eventIndex), JSON.stringify(event)];
        const outcome = await this.#run(scripts.INSERT, this.#events(event.sessionId), values);
        if (outcome === "index")
            throw new EventIndexConflictError(event.sessionId, event.eventIndex);
        if (outcome === "id")
            throw new EventIdConflictError(event.id);
    }
    async lastIndex(sessionId) {
        return Number(await this.#run(scripts.LAST, this.#events(sessionId), []));
    }
    async remove(sessionId) {
        await this.#run(scripts.REMOVE_EVENTS, this.#events(sessionId), []);
        await this.#run(scripts.REMOVE, this.#sessions(), [sessionId]);
    }
    close() {
        return this.#close();
    }
    async #list(script, keys, { after, offset, limit }) {
        const values = [String(limit + 1), String(offset), ...(after ? [String(after.number), after.id] : [])];
        return (await this.#run(script, keys, values)).map((text) => JSON.parse(text));
    }
    #run(script, keys, values) {
        return this.#client.eval(script, { keys, arguments: values });
    }
    /** The order and the contents of sessions. */
    #sessions() {
        return [`${this.#prefix}{sessions}:order`, `${this.#prefix}{sessions}:records`];
    }
    /** The order and the contents of a session's events. */
    #events(sessionId) {
        const tag = encodeURIComponent(sessionId);
        return [`${this.#prefix}events:{${tag}}:order`, `${this.#prefix}events:{${tag}}:records`];
    }
}
