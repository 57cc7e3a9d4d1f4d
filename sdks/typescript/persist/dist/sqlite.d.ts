import { PersistDriver, type DriverOptions } from "./driver.js";
/** What is needed of a database: `DatabaseSync` of node:sqlite has it, so has better-sqlite3. */
export interface SqliteDatabase {
    exec(sql: string): unknown;
    prepare(sql: string): {
        run(...values: unknown[]): {
            changes: number | bigint;
        };
        get(...values: unknown[]): unknown;
        all(...values: unknown[]): unknown[];
    };
    close(): unknown;
}
/** Where the sessions are. */
export interface SqliteOptions extends DriverOptions {
    /** A file, `:memory:` if absent. */
    filename?: string;
    /** A database that is open already and stays open. */
    database?: SqliteDatabase;
    /** Milliseconds to wait for another writer. */
    busyTimeoutMs?: number;
}
/**
 * Sessions in an SQLite database, in the SDK's tables and one index more. Opens a file with
 * node:sqlite, or with better-sqlite3 where that is not there; an event is on disk when it is said
 * to be stored.
 */
export declare function sqlite(options?: SqliteOptions): Promise<PersistDriver>;
