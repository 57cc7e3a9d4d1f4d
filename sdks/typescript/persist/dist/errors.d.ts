/**
 * An event whose place is taken. The message is what the SDK looks for before it takes the next
 * index and tries again.
 */
export declare class EventIndexConflictError extends Error {
    readonly sessionId: string;
    readonly eventIndex: number;
    readonly code = "conflict";
    constructor(sessionId: string, eventIndex: number);
}
/** An event id that another event of the session has. Trying again does not help. */
export declare class EventIdConflictError extends Error {
    readonly eventId: string;
    readonly code = "conflict";
    constructor(eventId: string);
}
/** A record, an event or an option that cannot be what it should be. */
export declare class InvalidInputError extends Error {
    readonly code = "invalid_input";
    constructor(message: string);
}
