import { CappedBackend } from "./capped.js";
import { PersistDriver } from "./driver.js";
import { InvalidInputError } from "./errors.js";
/** Where in an actor's state the sessions are unless told otherwise. */
export const STATE_KEY = "_sandboxAgentPersist";
/** Sessions in the state of an actor, of any runtime that gives an object to write to. */
export function actor(options) {
    const { state, save, stateKey = STATE_KEY } = options;
    const current = (typeof state === "function" ? state : () => state);
    const kept = () => {
        const object = current();
        if (typeof object !== "object" || object === null)
            throw new InvalidInputError("the actor's state must be an object");
        const there = object[stateKey];
        if (there?.sessions && there.events)
            return there;
        object[stateKey] = { sessions: {}, events: {} };
        return object[stateKey];
    };
    kept();
    return new PersistDriver(new CappedBackend(kept, options, save), options);
}
