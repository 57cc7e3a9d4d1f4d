import { EventIdConflictError, EventIndexConflictError } from "./errors.js";
import { compare, select } from "./page.js";
import { copy, eventPlace, sessionPlace } from "./record.js";
/** Sessions that are kept unless told otherwise. */
export const DEFAULT_MAX_SESSIONS = 1024;
/** Events of a session that are kept unless told otherwise. */
export const DEFAULT_MAX_EVENTS = 500;
function cap(value, fallback) {
    return typeof value === "number" && Number.isFinite(value) && value >= 1 ? Math.floor(value) : fallback;
}
function own(map, key) {
    return Object.hasOwn(map, key) ? map[key] : undefined;
}
function put(map, key, value) {
    // Assigning to this name would change the prototype instead.
    if (key === "__proto__")
        Object.defineProperty(map, key, { value, writable: true, enumerable: true, configurable: true });
    else
        map[key] = value;
}
/**
 * A backend in one object, with limits: the oldest sessions go with their events, and the oldest
 * events of a session. Whatever it does, it does without interruption.
 */
export class CappedBackend {
    #kept;
    #changed;
    #maxSessions;
    #maxEvents;
    constructor(kept, caps, changed = () => { }) {
        this.#kept = kept;
        this.#changed = changed;
        this.#maxSessions = cap(caps.maxSessions, DEFAULT_MAX_SESSIONS);
        this.#maxEvents = cap(caps.maxEventsPerSession, DEFAULT_MAX_EVENTS);
    }
    async getRecord(id) {
        const record = own(this.#kept().sessions, id);
        return record && copy(record);
    }
    async putRecord(record) {
        const { sessions, events } = this.#kept();
        put(sessions, record.id, record);
        const overflow = Object.keys(sessions).length - this.#maxSessions;
        if (overflow > 0) {
            for (const { id } of this.#sorted().slice(0, overflow)) {
                delete sessions[id];
                delete events[id];
            }
        }
        await this.#changed();
    }
    async listRecords(range) {
        return select(this.#sorted(), range, sessionPlace).map(copy);
    }
    async listEvents(sessionId, range) {
        return select(own(this.#kept().events, sessionId) ?? [], range, eventPlace).map(copy);
    }
    async insert(event) {
        const list = this.#eventsOf(event.sessionId);
        const at = list.findLastIndex((other) => other.eventIndex <= event.eventIndex);
        const same = list[at];
        if (same?.eventIndex === event.eventIndex) {
            if (same.id === event.id)
                return;
            throw new EventIndexConflictError(event.sessionId, event.eventIndex);
        }
        if (list.some((other) => other.id === event.id))
            throw new EventIdConflictError(event.id);
        list.splice(at + 1, 0, event);
        if (list.length > this.#maxEvents)
            list.splice(0, list.length - this.#maxEvents);
        await this.#changed();
    }
    async lastIndex(sessionId) {
        return own(this.#kept().events, sessionId)?.at(-1)?.eventIndex ?? 0;
    }
    async remove(sessionId) {
        const { sessions, events } = this.#kept();
        delete sessions[sessionId];
        delete events[sessionId];
        await this.#changed();
    }
    async close() { }
    /** The events of a session, which need not be there: the SDK stores its first events before it. */
    #eventsOf(sessionId) {
        const { sessions, events } = this.#kept();
        const list = own(events, sessionId);
        if (list)
            return list;
        const orphans = Object.keys(events).filter((id) => !Object.hasOwn(sessions, id));
        for (const id of orphans.slice(0, Math.max(0, orphans.length - this.#maxSessions + 1)))
            delete events[id];
        put(events, sessionId, []);
        return own(events, sessionId);
    }
    #sorted() {
        return Object.values(this.#kept().sessions).sort((a, b) => compare(sessionPlace(a), sessionPlace(b)));
    }
}
