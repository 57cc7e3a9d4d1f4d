import type { ListEventsRequest, ListPage, ListPageRequest, SessionEvent, SessionPersistDriver, SessionRecord } from "sandbox-agent";
import { EventIndexConflictError, InvalidInputError } from "./errors.js";
import { page, range, type Range } from "./page.js";
import { checkId, eventPlace, sessionPlace, toEvent, toRecord } from "./record.js";

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
export function checkOptions({ onConflict = "reject", generation = "0.4" }: DriverOptions): void {
  if (onConflict !== "reject" && onConflict !== "append") throw new InvalidInputError("onConflict must be 'reject' or 'append'");
  if (generation !== "0.4" && generation !== "0.2") throw new InvalidInputError("generation must be '0.4' or '0.2'");
}

/** How often `append` looks for a free index before it gives up. */
const MAX_APPENDS = 1000;

/** A driver for the SDK's option `persist`, of both its generations. */
export class PersistDriver implements SessionPersistDriver {
  readonly #backend: Backend;
  readonly #append: boolean;
  readonly #missing: undefined;

  constructor(backend: Backend, options: DriverOptions = {}) {
    checkOptions(options);
    this.#backend = backend;
    this.#append = options.onConflict === "append";
    // Typed after 0.4; a client of 0.2 asked for what its own types say.
    this.#missing = (options.generation === "0.2" ? null : undefined) as undefined;
  }

  /** Another driver on the same store, with options of its own. Closing one closes both. */
  share(options: DriverOptions): PersistDriver {
    return new PersistDriver(this.#backend, options);
  }

  async getSession(id: string): Promise<SessionRecord | undefined> {
    return (await this.#backend.getRecord(checkId(id, "id"))) ?? this.#missing;
  }

  async listSessions(request?: ListPageRequest): Promise<ListPage<SessionRecord>> {
    const wanted = range(request);
    return page(await this.#backend.listRecords(wanted), wanted.limit, sessionPlace);
  }

  /** Stores a session, in the place of one with the same id. */
  async updateSession(session: SessionRecord): Promise<void> {
    await this.#backend.putRecord(toRecord(session));
  }

  async listEvents(request: ListEventsRequest): Promise<ListPage<SessionEvent>> {
    const wanted = range(request);
    const sessionId = checkId(request?.sessionId, "sessionId");
    return page(await this.#backend.listEvents(sessionId, wanted), wanted.limit, eventPlace);
  }

  /** Stores an event, as 0.4 calls it and as 0.2 does. */
  async insertEvent(sessionId: string, event: SessionEvent): Promise<void>;
  async insertEvent(event: SessionEvent): Promise<void>;
  async insertEvent(first: string | SessionEvent, second?: SessionEvent): Promise<void> {
    const given = typeof first === "string" ? second : first;
    const event = toEvent(given as SessionEvent);
    if (typeof first === "string" && first !== event.sessionId) {
      throw new InvalidInputError(`an event of session '${event.sessionId}' was given for session '${first}'`);
    }
    await this.#insert(event);
    if (given && given.eventIndex !== event.eventIndex) given.eventIndex = event.eventIndex;
  }

  async #insert(event: SessionEvent): Promise<void> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        return await this.#backend.insert(event);
      } catch (error) {
        if (!this.#append || !(error instanceof EventIndexConflictError) || attempt === MAX_APPENDS) throw error;
        event.eventIndex = (await this.#backend.lastIndex(event.sessionId)) + 1;
      }
    }
  }

  /** Removes a session and its events, which the SDK never does. What is not there is no error. */
  async deleteSession(id: string): Promise<void> {
    await this.#backend.remove(checkId(id, "id"));
  }

  /** Gives back what the driver opened itself. */
  async close(): Promise<void> {
    await this.#backend.close();
  }
}
