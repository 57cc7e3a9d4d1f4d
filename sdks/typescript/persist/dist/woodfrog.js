import { PersistDriver } from "./driver.js";
import { EventIdConflictError, EventIndexConflictError, InvalidInputError } from "./errors.js";
/** A reply that is no success. `code` is what the server calls it. */
export class WoodfrogError extends Error {
    status;
    code;
    constructor(status, code, detail) {
        super(detail);
        this.status = status;
        this.code = code;
        this.name = "WoodfrogError";
    }
}
/** Sessions in a Woodfrog server, over the routes of docs/design/persist-api.md. */
export function woodfrog(options) {
    return new PersistDriver(new WoodfrogBackend(options), options);
}
/** The most items the server gives at once. */
const MAX_PAGE = 1000;
class WoodfrogBackend {
    #base;
    #key;
    #fetch;
    #timeout;
    constructor({ baseUrl, apiKey, fetch, timeoutMs = 30_000 }) {
        if (!/^https?:\/\//.test(baseUrl))
            throw new InvalidInputError("baseUrl must begin with http:// or https://");
        if (!apiKey)
            throw new InvalidInputError("apiKey must not be empty");
        this.#base = `${baseUrl.replace(/\/+$/, "")}/api/v1/persist/sessions`;
        this.#key = apiKey;
        this.#fetch = fetch ?? globalThis.fetch.bind(globalThis);
        this.#timeout = timeoutMs;
    }
    async getRecord(id) {
        const response = await this.#send("GET", `/${encodeURIComponent(id)}`);
        if (response.status === 404)
            return void (await response.body?.cancel());
        return (await read(response));
    }
    async putRecord(record) {
        await read(await this.#send("PUT", `/${encodeURIComponent(record.id)}`, record));
    }
    listRecords(range) {
        return this.#list("", range);
    }
    listEvents(sessionId, range) {
        return this.#list(`/${encodeURIComponent(sessionId)}/events`, range);
    }
    async insert(event) {
        const response = await this.#send("POST", `/${encodeURIComponent(event.sessionId)}/events`, event);
        try {
            await read(response);
        }
        catch (error) {
            if (!(error instanceof WoodfrogError) || error.status !== 409)
                throw error;
            if (error.code === "event_id_conflict")
                throw new EventIdConflictError(event.id);
            throw new EventIndexConflictError(event.sessionId, event.eventIndex);
        }
    }
    async lastIndex(sessionId) {
        const response = await this.#send("GET", `/${encodeURIComponent(sessionId)}/events?limit=1&order=desc`);
        const { items } = (await read(response));
        return items[0]?.eventIndex ?? 0;
    }
    async remove(sessionId) {
        const response = await this.#send("DELETE", `/${encodeURIComponent(sessionId)}`);
        if (response.status === 404)
            return void (await response.body?.cancel());
        await read(response);
    }
    async close() { }
    /** The server's pages are bounded; one of ours may take several of them. */
    async #list(path, { after, offset, limit }) {
        const found = [];
        let cursor = after ? `k1:${after.number}:${after.id}` : offset > 0 ? String(offset) : undefined;
        while (found.length <= limit) {
            const query = new URLSearchParams({ limit: String(Math.min(MAX_PAGE, limit + 1 - found.length)) });
            if (cursor !== undefined)
                query.set("cursor", cursor);
            const { items, nextCursor } = (await read(await this.#send("GET", `${path}?${query}`)));
            found.push(...items);
            if (nextCursor === undefined)
                break;
            cursor = nextCursor;
        }
        return found;
    }
    #send(method, path, body) {
        const headers = { accept: "application/json", authorization: `Bearer ${this.#key}` };
        const init = { method, headers, signal: AbortSignal.timeout(this.#timeout) };
        if (body !== undefined) {
            headers["content-type"] = "application/json";
            init.body = JSON.stringify(body);
        }
        return this.#fetch(this.#base + path, init);
    }
}
async function read(response) {
    const text = await response.text();
    if (response.ok)
        return text ? JSON.parse(text) : undefined;
    let problem = {};
    try {
        problem = JSON.parse(text);
    }
    catch {
        // Something between us and the server answered in its own words.
    }
    const detail = typeof problem.detail === "string" ? problem.detail : `HTTP ${response.status}`;
    throw new WoodfrogError(response.status, typeof problem.code === "string" ? problem.code : "unknown", detail);
}
