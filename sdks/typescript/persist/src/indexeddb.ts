import type { SessionEvent, SessionRecord } from "sandbox-agent";
import { checkOptions, PersistDriver, type Backend, type DriverOptions } from "./driver.js";
import { EventIdConflictError, EventIndexConflictError } from "./errors.js";
import { compare, select, type Range } from "./page.js";
import { sessionPlace } from "./record.js";

/** The database's name unless told otherwise, as the SDK's inspector has it. */
export const DATABASE = "sandbox-agent-session-store";
const VERSION = 2;
const ORDER = "by_session_index";

/** Where the sessions are. */
export interface IndexedDbOptions extends DriverOptions {
  databaseName?: string;
  /** Another implementation than the browser's. */
  indexedDB?: IDBFactory;
}

/** Sessions in the browser. Tabs of one origin share them. */
export async function indexeddb(options: IndexedDbOptions = {}): Promise<PersistDriver> {
  const factory = options.indexedDB ?? globalThis.indexedDB;
  checkOptions(options);
  const request = factory.open(options.databaseName ?? DATABASE, VERSION);
  request.onupgradeneeded = () => upgrade(request);
  const db = await done(request);
  // Another tab that upgrades the database must not wait for this one.
  db.onversionchange = () => db.close();
  return new PersistDriver(new IndexedDbBackend(db), options);
}

function upgrade(request: IDBOpenDBRequest): void {
  const db = request.result;
  if (!db.objectStoreNames.contains("sessions")) db.createObjectStore("sessions", { keyPath: "id" });
  const events = db.objectStoreNames.contains("events")
    ? (request.transaction as IDBTransaction).objectStore("events")
    : db.createObjectStore("events", { keyPath: "id" });
  if (!events.indexNames.contains(ORDER)) events.createIndex(ORDER, ["sessionId", "eventIndex", "id"], { unique: false });
}

function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error ?? new Error("the database failed"));
  });
}

function committed(transaction: IDBTransaction): Promise<void> {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error ?? new Error("the database gave up a change"));
  });
}

class IndexedDbBackend implements Backend {
  readonly #db: IDBDatabase;

  constructor(db: IDBDatabase) {
    this.#db = db;
  }

  async getRecord(id: string): Promise<SessionRecord | undefined> {
    return (await done(this.#read("sessions").get(id))) as SessionRecord | undefined;
  }

  async putRecord(record: SessionRecord): Promise<void> {
    const transaction = this.#write("sessions");
    transaction.objectStore("sessions").put(record);
    await committed(transaction);
  }

  async listRecords(range: Range): Promise<SessionRecord[]> {
    const all = (await done(this.#read("sessions").getAll())) as SessionRecord[];
    return select(all.sort((a, b) => compare(sessionPlace(a), sessionPlace(b))), range, sessionPlace);
  }

  async listEvents(sessionId: string, { after, offset, limit }: Range): Promise<SessionEvent[]> {
    const from = after ? [sessionId, after.number, after.id] : [sessionId];
    // An array sorts after every number: this is behind the last event of the session.
    const keys = IDBKeyRange.bound(from, [sessionId, []], after !== undefined, true);
    const index = this.#read("events").index(ORDER);
    if (offset === 0) return (await done(index.getAll(keys, limit + 1))) as SessionEvent[];
    return new Promise((resolve, reject) => {
      const found: SessionEvent[] = [];
      const request = index.openCursor(keys);
      let skipped = false;
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (!cursor || found.length > limit) return resolve(found);
        if (!skipped) {
          skipped = true;
          return cursor.advance(offset);
        }
        found.push(cursor.value as SessionEvent);
        cursor.continue();
      };
    });
  }

  /** Writing transactions of one store run one after the other, over all tabs. */
  insert(event: SessionEvent): Promise<void> {
    const transaction = this.#write("events");
    const store = transaction.objectStore("events");
    const place = [event.sessionId, event.eventIndex];
    let refusal: Error | undefined;
    const refuse = (error: Error | undefined) => {
      refusal = error;
      transaction.abort();
    };
    const known = store.get(event.id);
    known.onsuccess = () => {
      const same = known.result as SessionEvent | undefined;
      if (same) {
        const equal = same.sessionId === event.sessionId && same.eventIndex === event.eventIndex;
        return equal ? undefined : refuse(new EventIdConflictError(event.id));
      }
      const taken = store.index(ORDER).getKey(IDBKeyRange.bound(place, [...place, []]));
      taken.onsuccess = () => {
        if (taken.result !== undefined) return refuse(new EventIndexConflictError(event.sessionId, event.eventIndex));
        store.add(event);
      };
    };
    return committed(transaction).catch((error: unknown) => {
      throw refusal ?? error;
    });
  }

  async lastIndex(sessionId: string): Promise<number> {
    const keys = IDBKeyRange.bound([sessionId], [sessionId, []]);
    const cursor = await done(this.#read("events").index(ORDER).openKeyCursor(keys, "prev"));
    return cursor ? ((cursor.key as unknown[])[1] as number) : 0;
  }

  async remove(sessionId: string): Promise<void> {
    const transaction = this.#write("sessions", "events");
    transaction.objectStore("sessions").delete(sessionId);
    const request = transaction.objectStore("events").index(ORDER).openCursor(IDBKeyRange.bound([sessionId], [sessionId, []]));
    request.onsuccess = () => {
      request.result?.delete();
      request.result?.continue();
    };
    await committed(transaction);
  }

  async close(): Promise<void> {
    this.#db.close();
  }

  #read(store: string): IDBObjectStore {
    return this.#db.transaction(store, "readonly").objectStore(store);
  }

  #write(...stores: string[]): IDBTransaction {
    return this.#db.transaction(stores, "readwrite", { durability: "strict" });
  }
}
