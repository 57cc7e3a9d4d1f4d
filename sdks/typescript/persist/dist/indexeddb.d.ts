import { PersistDriver, type DriverOptions } from "./driver.js";
/** The database's name unless told otherwise, as the SDK's inspector has it. */
export declare const DATABASE = "sandbox-agent-session-store";
/** Where the sessions are. */
export interface IndexedDbOptions extends DriverOptions {
    databaseName?: string;
    /** Another implementation than the browser's. */
    indexedDB?: IDBFactory;
}
/** Sessions in the browser. Tabs of one origin share them. */
export declare function indexeddb(options?: IndexedDbOptions): Promise<PersistDriver>;
