import type { Pool, PoolConfig } from "pg";
import { PersistDriver, type DriverOptions } from "./driver.js";
/** Where the sessions are. */
export interface PostgresOptions extends DriverOptions {
    connectionString?: string;
    /** A pool that exists already; it stays open. */
    pool?: Pool;
    /** For a pool of our own. */
    poolConfig?: PoolConfig;
    /** The schema of the tables, made if need be. */
    schema?: string;
}
/** Sessions in Postgres, in the SDK's tables and one index more. */
export declare function postgres(options?: PostgresOptions): Promise<PersistDriver>;
