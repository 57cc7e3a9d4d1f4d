import { CappedBackend, type Caps, type Kept } from "./capped.js";
import { PersistDriver, type DriverOptions } from "./driver.js";
import { InvalidInputError } from "./errors.js";

/** Where in an actor's state the sessions are unless told otherwise. */
export const STATE_KEY = "_sandboxAgentPersist";

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
export function actor(options: ActorOptions): PersistDriver {
  const { state, save, stateKey = STATE_KEY } = options;
  const current = (typeof state === "function" ? state : () => state) as () => Record<string, Kept | undefined>;
  const kept = () => {
    const object = current();
    if (typeof object !== "object" || object === null) throw new InvalidInputError("the actor's state must be an object");
    const there = object[stateKey];
    if (there?.sessions && there.events) return there;
    object[stateKey] = { sessions: {}, events: {} };
    return object[stateKey] as Kept;
  };
  kept();
  return new PersistDriver(new CappedBackend(kept, options, save), options);
}
