import { PersistDriver, type DriverOptions } from "./driver.js";
/** What is needed of a client: that of @redis/client has it. */
export interface RedisClient {
    eval(script: string, options: {
        keys: string[];
        arguments: string[];
    }): Promise<unknown>;
}
/** Where the sessions are. */
export interface RedisOptions extends DriverOptions {
    /** `redis://…`; the driver connects. */
    url?: string;
    /** A client that is connected already and stays so. */
    client?: RedisClient;
    /** What the keys begin with. */
    prefix?: string;
}
/**
 * Sessions in Redis; every operation is one script, so it happens as a whole. An event is as durable
 * as the server is told to be: `appendonly yes` and `appendfsync always` to have it on disk when it
 * is said to be stored. All keys of an operation are in one slot of a cluster.
 */
export declare function redis(options?: RedisOptions): Promise<PersistDriver>;
