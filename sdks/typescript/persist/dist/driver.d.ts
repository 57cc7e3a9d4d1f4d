import type { ListEventsRequest, ListPage, ListPageRequest, SessionEvent, SessionPersistDriver, SessionRecord } from "sandbox-agent";
import { type Range } from "./page.js";
/**
 * What a backend has to do. Records and events are checked and belong to the backend; it gives out
 * what the caller may change. Lists are in order and have one item more than the range asks for if
 * there are more.
 */
export interface Backend {
    getRecord(id: string): Promise<SessionRecord | undefined>;
    putRecord(record: SessionRecord): Promise<void>;
    listRecords(range: Range): Promise<SessionRecord[]>;
    listEvents(sessionId: string, range: Range): Promise<SessionEvent[]>;
    /**
     * Stores an event, or does nothing if it is there under the same id and index. Must be atomic: of
     * two events with one index the second fails with `EventIndexConflictError`.
     */
    insert(event: SessionEvent): Promise<void>;
    /** The highest index of a session, 0 if it has no events. */
    lastIndex(sessionId: string): Promise<number>;
    /** Removes a session and its events. */
    remove(sessionId: string): Promise<void>;
    close(): Promise<void>;
}
/** Options that every driver has. */
export interface DriverOptions {
    /**
     * What becomes of an event whose index another event has: `reject` (the default) fails as the SDK
     * expects, which then tries the next two; `append` gives it the next free index and writes that
     * into the event. With `append` any number of clients may write one session.
     */
    onConflict?: "reject" | "append";
    /** What `getSession` says for what is not there: `undefined` (0.4) or `null` (0.2). */
    generation?: "0.4" | "0.2";
}
/** Refuses options that mean nothing, before anything is opened for them. */
export declare function checkOptions({ onConflict, generation }: DriverOptions): void;
/** A driver for the SDK's option `persist`, of both its generations. */
export declare class PersistDriver implements SessionPersistDriver {
    #private;
    constructor(backend: Backend, options?: DriverOptions);
    /** Another driver on the same store, with options of its own. Closing one closes both. */
    share(options: DriverOptions): PersistDriver;
    getSession(id: string): Promise<SessionRecord | undefined>;
    listSessions(request?: ListPageRequest): Promise<ListPage<SessionRecord>>;
    /** Stores a session, in the place of one with the same id. */
    updateSession(session: SessionRecord): Promise<void>;
    listEvents(request: ListEventsRequest): Promise<ListPage<SessionEvent>>;
    /** Stores an event, as 0.4 calls it and as 0.2 does. */
    insertEvent(sessionId: string, event: SessionEvent): Promise<void>;
    insertEvent(event: SessionEvent): Promise<void>;
    /** Removes a session and its events, which the SDK never does. What is not there is no error. */
    deleteSession(id: string): Promise<void>;
    /** Gives back what the driver opened itself. */
    close(): Promise<void>;
}
