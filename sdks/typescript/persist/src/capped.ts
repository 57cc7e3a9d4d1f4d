import type { SessionEvent, SessionRecord } from "sandbox-agent";
import type { Backend } from "./driver.js";
import { EventIdConflictError, EventIndexConflictError } from "./errors.js";
import { compare, select, type Range } from "./page.js";
import { copy, eventPlace, sessionPlace } from "./record.js";

/** Sessions that are kept unless told otherwise. */
export const DEFAULT_MAX_SESSIONS = 1024;
/** Events of a session that are kept unless told otherwise. */
export const DEFAULT_MAX_EVENTS = 500;

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

function cap(value: number | undefined, fallback: number): number {
  return typeof value === "number" && Number.isFinite(value) && value >= 1 ? Math.floor(value) : fallback;
}

function own<T>(map: Record<string, T>, key: string): T | undefined {
  return Object.hasOwn(map, key) ? map[key] : undefined;
}

function put<T>(map: Record<string, T>, key: string, value: T): void {
  // Assigning to this name would change the prototype instead.
  if (key === "__proto__") Object.defineProperty(map, key, { value, writable: true, enumerable: true, configurable: true });
  else map[key] = value;
}

/**
 * A backend in one object, with limits: the oldest sessions go with their events, and the oldest
 * events of a session. Whatever it does, it does without interruption.
 */
export class CappedBackend implements Backend {
  readonly #kept: () => Kept;
  readonly #changed: () => unknown;
  readonly #maxSessions: number;
  readonly #maxEvents: number;

  constructor(kept: () => Kept, caps: Caps, changed: () => unknown = () => {}) {
    this.#kept = kept;
    this.#changed = changed;
    this.#maxSessions = cap(caps.maxSessions, DEFAULT_MAX_SESSIONS);
    this.#maxEvents = cap(caps.maxEventsPerSession, DEFAULT_MAX_EVENTS);
  }

  async getRecord(id: string): Promise<SessionRecord | undefined> {
    const record = own(this.#kept().sessions, id);
    return record && copy(record);
  }

  async putRecord(record: SessionRecord): Promise<void> {
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

  async listRecords(range: Range): Promise<SessionRecord[]> {
    return select(this.#sorted(), range, sessionPlace).map(copy);
  }

  async listEvents(sessionId: string, range: Range): Promise<SessionEvent[]> {
    return select(own(this.#kept().events, sessionId) ?? [], range, eventPlace).map(copy);
  }

  async insert(event: SessionEvent): Promise<void> {
    const list = this.#eventsOf(event.sessionId);
    const at = list.findLastIndex((other) => other.eventIndex <= event.eventIndex);
    const same = list[at];
    if (same?.eventIndex === event.eventIndex) {
      if (same.id === event.id) return;
      throw new EventIndexConflictError(event.sessionId, event.eventIndex);
    }
    if (list.some((other) => other.id === event.id)) throw new EventIdConflictError(event.id);
    list.splice(at + 1, 0, event);
    if (list.length > this.#maxEvents) list.splice(0, list.length - this.#maxEvents);
    await this.#changed();
  }

  async lastIndex(sessionId: string): Promise<number> {
    return own(this.#kept().events, sessionId)?.at(-1)?.eventIndex ?? 0;
  }

  async remove(sessionId: string): Promise<void> {
    const { sessions, events } = this.#kept();
    delete sessions[sessionId];
    delete events[sessionId];
    await this.#changed();
  }

  async close(): Promise<void> {}

  /** The events of a session, which need not be there: the SDK stores its first events before it. */
  #eventsOf(sessionId: string): SessionEvent[] {
    const { sessions, events } = this.#kept();
    const list = own(events, sessionId);
    if (list) return list;
    const orphans = Object.keys(events).filter((id) => !Object.hasOwn(sessions, id));
    for (const id of orphans.slice(0, Math.max(0, orphans.length - this.#maxSessions + 1))) delete events[id];
    put(events, sessionId, []);
    return own(events, sessionId) as SessionEvent[];
  }

  #sorted(): SessionRecord[] {
    return Object.values(this.#kept().sessions).sort((a, b) => compare(sessionPlace(a), sessionPlace(b)));
  }
}
