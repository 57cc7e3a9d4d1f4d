import { CappedBackend } from "./capped.js";
import { PersistDriver } from "./driver.js";
/** Sessions in this process, until it ends; 1024 of them with 500 events each unless told otherwise. */
export function memory(options = {}) {
    const kept = { sessions: Object.create(null), events: Object.create(null) };
    return new PersistDriver(new CappedBackend(() => kept, options), options);
}
