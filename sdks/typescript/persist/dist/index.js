// Drivers for the option `persist` of the sandbox-agent SDK. Each is also a module of its own, so
// that a browser need not load what it cannot use.
export { actor, STATE_KEY } from "./actor.js";
export { PersistDriver } from "./driver.js";
export { EventIdConflictError, EventIndexConflictError, InvalidInputError } from "./errors.js";
export { indexeddb } from "./indexeddb.js";
export { memory } from "./memory.js";
export { postgres } from "./postgres.js";
export { redis } from "./redis.js";
export { sqlite } from "./sqlite.js";
export { woodfrog, WoodfrogError } from "./woodfrog.js";
