import { type Caps } from "./capped.js";
import { PersistDriver, type DriverOptions } from "./driver.js";
/** Sessions in this process, until it ends; 1024 of them with 500 events each unless told otherwise. */
export declare function memory(options?: DriverOptions & Caps): PersistDriver;
