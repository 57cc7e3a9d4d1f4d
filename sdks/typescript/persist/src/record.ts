import type { SessionEvent, SessionRecord } from "sandbox-agent";
import { InvalidInputError } from "./errors.js";
import type { Place } from "./page.js";

/** The longest id that is taken, in UTF-16 units. */
export const MAX_ID = 512;

const RECORD = ["agent", "agentSessionId", "lastConnectionId"] as const;

function fail(what: string): never {
  throw new InvalidInputError(what);
}

/** An id that every store can keep. */
export function checkId(value: unknown, what: string): string {
  if (typeof value !== "string" || value === "") fail(`${what} must be a text that is not empty`);
  if (value.length > MAX_ID) fail(`${what} is longer than ${MAX_ID} characters`);
  // No URL can have these as a step of its path.
  if (value === "." || value === "..") fail(`${what} must not be '${value}'`);
  if (value.includes("\0")) fail(`${what} must not contain a null character`);
  return value;
}

function time(value: unknown, what: string): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value)) fail(`${what} must be an integer`);
  return value;
}

/** A copy that shares nothing with `value` and has no `undefined` in it. */
export function copy<T>(value: T): T {
  return JSON.parse(JSON.stringify(value)) as T;
}

/**
 * A copy of a record with exactly the fields that the SDK knows. What is `undefined` is left out,
 * `modes: null` stays.
 */
export function toRecord(input: SessionRecord): SessionRecord {
  if (typeof input !== "object" || input === null) fail("a session must be an object");
  const record: Record<string, unknown> = { id: checkId(input.id, "id") };
  for (const field of RECORD) {
    if (typeof input[field] !== "string") fail(`${field} must be a text`);
    record[field] = input[field];
  }
  record.createdAt = time(input.createdAt, "createdAt");
  if (input.destroyedAt != null) record.destroyedAt = time(input.destroyedAt, "destroyedAt");
  if (input.sandboxId != null) record.sandboxId = String(input.sandboxId);
  if (input.sessionInit != null) record.sessionInit = copy(input.sessionInit);
  if (input.configOptions != null) record.configOptions = copy(input.configOptions);
  if (input.modes !== undefined) record.modes = copy(input.modes);
  return record as unknown as SessionRecord;
}

/** A copy of an event with exactly its fields. */
export function toEvent(input: SessionEvent): SessionEvent {
  if (typeof input !== "object" || input === null) fail("an event must be an object");
  const eventIndex = time(input.eventIndex, "eventIndex");
  if (eventIndex < 1) fail("eventIndex must be 1 or more");
  if (input.sender !== "client" && input.sender !== "agent") fail("sender must be 'client' or 'agent'");
  if (typeof input.payload !== "object" || input.payload === null) fail("payload must be an object");
  if (typeof input.connectionId !== "string") fail("connectionId must be a text");
  return {
    id: checkId(input.id, "id"),
    eventIndex,
    sessionId: checkId(input.sessionId, "sessionId"),
    createdAt: time(input.createdAt, "createdAt"),
    connectionId: input.connectionId,
    sender: input.sender,
    payload: copy(input.payload),
  };
}

/** Where a session is among others. */
export function sessionPlace(record: SessionRecord): Place {
  return { number: record.createdAt, id: record.id };
}

/** Where an event is in its session. */
export function eventPlace(event: SessionEvent): Place {
  return { number: event.eventIndex, id: event.id };
}
