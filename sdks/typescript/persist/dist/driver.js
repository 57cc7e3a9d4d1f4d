import { EventIndexConflictError, InvalidInputError } from "./errors.js";
import { page, range } from "./page.js";
import { checkId, eventPlace, sessionPlace, toEvent, toRecord } from "./record.js";
/** Refuses options that mean nothing, before anything is opened for them. */
export function checkOptions({ onConflict = "reject", generation = "0.4" }) {
    if (onConflict !== "reject" && onConflict !== "append")
        throw new InvalidInputError("onConflict must be 'reject' or 'append'");
    if (generation !== "0.4" && generation !== "0.2")
        throw new InvalidInputError("generation must be '0.4' or '0.2'");
}
/** How often `append` looks for a free index before it gives up. */
const MAX_APPENDS = 1000;
/** A driver for the SDK's option `persist`, of both its generations. */
export class PersistDriver {
    #backend;
    #append;
    #missing;
    constructor(backend, options = {}) {
        checkOptions(options);
        this.#backend = backend;
        this.#append = options.onConflict === "append";
        // Typed after 0.4; a client of 0.2 asked for what its own types say.
        this.#missing = (options.generation === "0.2" ? null : undefined);
    }
    /** Another driver on the same store, with options of its own. Closing one closes both. */
    share(options) {
        return new PersistDriver(this.#backend, options);
    }
    async getSession(id) {
        return (await this.#backend.getRecord(checkId(id, "id"))) ?? this.#missing;
    }
    async listSessions(request) {
        const wanted = range(request);
        return page(await this.#backend.listRecords(wanted), wanted.limit, sessionPlace);
    }
    /** Stores a session, in the place of one with the same id. */
    async updateSession(session) {
        await this.#backend.putRecord(toRecord(session));
    }
    async listEvents(request) {
        const wanted = range(request);
        const sessionId = checkId(request?.sessionId, "sessionId");
        return page(await this.#backend.listEvents(sessionId, wanted), wanted.limit, eventPlace);
    }
    async insertEvent(first, second) {
        const given = typeof first === "string" ? second : first;
        const event = toEvent(given);
        if (typeof first === "string" && first !== event.sessionId) {
            throw new InvalidInputError(`an event of session '${event.sessionId}' was given for session '${first}'`);
        }
        await this.#insert(event);
        if (given && given.eventIndex !== event.eventIndex)
            given.eventIndex = event.eventIndex;
    }
    async #insert(event) {
        for (let attempt = 0;; attempt += 1) {
            try {
                return await this.#backend.insert(event);
            }
            catch (error) {
                if (!this.#append || !(error instanceof EventIndexConflictError) || attempt === MAX_APPENDS)
                    throw error;
                event.eventIndex = (await this.#backend.lastIndex(event.sessionId)) + 1;
            }
        }
    }
    /** Removes a session and its events, which the SDK never does. What is not there is no error. */
    async deleteSession(id) {
        await this.#backend.remove(checkId(id, "id"));
    }
    /** Gives back what the driver opened itself. */
    async close() {
        await this.#backend.close();
    }
}
