import type { SqliteDatabase } from "./sqlite.js";
/** Brings the tables of any version of the SDK's own driver to ours, or makes them. */
export declare function migrate(db: SqliteDatabase): void;
