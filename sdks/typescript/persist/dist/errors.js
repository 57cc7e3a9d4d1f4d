/**
 * An event whose place is taken. The message is what the SDK looks for before it takes the next
 * index and tries again.
 */
export class EventIndexConflictError extends Error {
    sessionId;
    eventIndex;
    code = "conflict";
    constructor(sessionId, eventIndex) {
        super("UNIQUE constraint failed: events.session_id, events.event_index");
        this.sessionId = sessionId;
        this.eventIndex = eventIndex;
        this.name = "EventIndexConflictError";
    }
}
/** An event id that another event of the session has. Trying again does not help. */
export class EventIdConflictError extends Error {
    eventId;
    code = "conflict";
    constructor(eventId) {
        super(`event id '${eventId}' belongs to another event`);
        this.eventId = eventId;
        this.name = "EventIdConflictError";
    }
}
/** A record, an event or an option that cannot be what it should be. */
export class InvalidInputError extends Error {
    code = "invalid_input";
    constructor(message) {
        super(message);
        this.name = "InvalidInputError";
    }
}
