import type { SessionEvent, SessionRecord } from "sandbox-agent";
import type { Backend } from "./driver.js";
import { type Range } from "./page.js";
/** Sessions that are kept unless told otherwise. */
export declare const DEFAULT_MAX_SESSIONS = 1024;
/** Events of a session that are kept unless told otherwise. */
export declare const DEFAULT_MAX_EVENTS = 500;
/** How much is kept; less than one is as good as nothing said. */
export interface Caps {
    maxSessions?: number;
    maxEventsPerSession?: number;
}
/** A plain object that everything is in. */
export interface Kept {
    sessions: Record<string, SessionRecord>;
    events: Record<string, SessionEvent[]>;
}
/**
 * A backend in one object, with limits: the oldest sessions go with their events, and the oldest
 * events of a session. Whatever it does, it does without interruption.
 */
export declare class CappedBackend implements Backend {
    #private;
    constructor(kept: () => Kept, caps: Caps, changed?: () => unknown);
    getRecord(id: string): Promise<SessionRecord | undefined>;
    putRecord(record: SessionRecord): Promise<void>;
    listRecords(range: Range): Promise<SessionRecord[]>;
    listEvents(sessionId: string, range: Range): Promise<SessionEvent[]>;
    insert(event: SessionEvent): Promise<void>;
    lastIndex(sessionId: string): Promise<number>;
    remove(sessionId: string): Promise<void>;
    close(): Promise<void>;
}
