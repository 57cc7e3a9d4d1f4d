/**
 * An event whose place is taken. The message is what the SDK looks for before it takes the next
 * index and tries again.
 */
export class EventIndexConflictError extends Error {
  readonly code = "conflict";

  constructor(
    readonly sessionId: string,
    readonly eventIndex: number,
  ) {
    super("UNIQUE constraint failed: events.session_id, events.event_index");
    this.name = "EventIndexConflictError";
  }
}

/** An event id that another event of the session has. Trying again does not help. */
export class EventIdConflictError extends Error {
  readonly code = "conflict";

  constructor(readonly eventId: string) {
    super(`event id '${eventId}' belongs to another event`);
    this.name = "EventIdConflictError";
  }
}

/** A record, an event or an option that cannot be what it should be. */
export class InvalidInputError extends Error {
  readonly code = "invalid_input";

  constructor(message: string) {
    super(message);
    this.name = "InvalidInputError";
  }
}
