// Drivers for the option `persist` of the sandbox-agent SDK. Each is also a module of its own, so
// that a browser need not load what it cannot use.
export { actor, STATE_KEY, type ActorOptions } from "./actor.js";
export type { Caps } from "./capped.js";
export { PersistDriver, type Backend, type DriverOptions } from "./driver.js";
export { EventIdConflictError, EventIndexConflictError, InvalidInputError } from "./errors.js";
export { indexeddb, type IndexedDbOptions } from "./indexeddb.js";
export { memory } from "./memory.js";
export { postgres, type PostgresOptions } from "./postgres.js";
export { redis, type RedisClient, type RedisOptions } from "./redis.js";
export { sqlite, type SqliteDatabase, type SqliteOptions } from "./sqlite.js";
export { woodfrog, WoodfrogError, type WoodfrogOptions } from "./woodfrog.js";
