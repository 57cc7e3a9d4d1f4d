import { PersistDriver, type DriverOptions } from "./driver.js";
/** Where the server is. */
export interface WoodfrogOptions extends DriverOptions {
    /** `https://host`, without `/api/v1`. */
    baseUrl: string;
    /** A key of the workspace that the sessions belong to. */
    apiKey: string;
    fetch?: typeof globalThis.fetch;
    /** Milliseconds until a request is given up. */
    timeoutMs?: number;
}
/** A reply that is no success. `code` is what the server calls it. */
export declare class WoodfrogError extends Error {
    readonly status: number;
    readonly code: string;
    constructor(status: number, code: string, detail: string);
}
/** Sessions in a Woodfrog server, over the routes of docs/design/persist-api.md. */
export declare function woodfrog(options: WoodfrogOptions): PersistDriver;
