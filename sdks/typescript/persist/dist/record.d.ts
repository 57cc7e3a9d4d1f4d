import type { SessionEvent, SessionRecord } from "sandbox-agent";
import type { Place } from "./page.js";
/** The longest id that is taken, in UTF-16 units. */
export declare const MAX_ID = 512;
/** An id that every store can keep. */
export declare function checkId(value: unknown, what: string): string;
/** A copy that shares nothing with `value` and has no `undefined` in it. */
export declare function copy<T>(value: T): T;
/**
 * A copy of a record with exactly the fields that the SDK knows. What is `undefined` is left out,
 * `modes: null` stays.
 */
export declare function toRecord(input: SessionRecord): SessionRecord;
/** A copy of an event with exactly its fields. */
export declare function toEvent(input: SessionEvent): SessionEvent;
/** Where a session is among others. */
export declare function sessionPlace(record: SessionRecord): Place;
/** Where an event is in its session. */
export declare function eventPlace(event: SessionEvent): Place;
