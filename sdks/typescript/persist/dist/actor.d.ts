import { type Caps } from "./capped.js";
import { PersistDriver, type DriverOptions } from "./driver.js";
/** Where in an actor's state the sessions are unless told otherwise. */
export declare const STATE_KEY = "_sandboxAgentPersist";
/** How an actor keeps sessions. */
export interface ActorOptions extends DriverOptions, Caps {
    /** The actor's state, or how to get it; an object that the runtime keeps. */
    state: object | (() => object);
    /** Called after each change, for runtimes that must be told. */
    save?: () => unknown;
    /** The key in the state. */
    stateKey?: string;
}
/** Sessions in the state of an actor, of any runtime that gives an object to write to. */
export declare function actor(options: ActorOptions): PersistDriver;
