import { CappedBackend, type Caps, type Kept } from "./capped.js";
import { PersistDriver, type DriverOptions } from "./driver.js";

/** Sessions in this process, until it ends; 1024 of them with 500 events each unless told otherwise. */
export function memory(options: DriverOptions & Caps = {}): PersistDriver {
  const kept: Kept = { sessions: Object.create(null), events: Object.create(null) };
  return new PersistDriver(new CappedBackend(() => kept, options), options);
}
