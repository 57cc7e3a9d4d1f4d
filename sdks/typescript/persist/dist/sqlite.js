import { checkOptions, PersistDriver } from "./driver.js";
import { EventIdConflictError, EventIndexConflictError, InvalidInputError } from "./errors.js";
import { migrate } from "./sqlite-schema.js";
/**
 * Sessions in an SQLite database, in the SDK's tables and one index more. Opens a file with
 * node:sqlite, or with better-sqlite3 where that is not there; an event is on disk when it is said
 * to be stored.
 */
export async function sqlite(options = {}) {
    const { filename = ":memory:", busyTimeoutMs = 5000 } = options;
    checkOptions(options);
    if (!Number.isSafeInteger(busyTimeoutMs) || busyTimeoutMs < 0)
        throw new InvalidInputError("busyTimeoutMs must be 0 or more");
    const database = options.database ?? (await open(filename));
    try {
        database.exec(`PRAGMA busy_timeout = ${busyTimeoutMs}`);
        migrate(database);
    }
    catch (error) {
        if (!options.database)
            database.close();
        throw error;
    }
    return new PersistDriver(new SqliteBackend(database, options.database === undefined), options);
}
async function open(filename) {
    try {
        const { DatabaseSync } = await import("node:sqlite");
        return new DatabaseSync(filename);
    }
    catch (error) {
        if (error.code !== "ERR_UNKNOWN_BUILTIN_MODULE")
            throw error;
    }
    const name = "better-sqlite3";
    const module = await import(name).catch(() => {
        throw new InvalidInputError("sqlite needs Node 22.13, or the package better-sqlite3, or the option `database`");
    });
    return new module.default(filename);
}
const json = (value) => (value === undefined ? null : JSON.stringify(value));
function toSession(row) {
    const record = {
        id: row.id,
        agent: row.agent,
        agentSessionId: row.agent_session_id,
        lastConnectionId: row.last_connection_id,
        createdAt: Number(row.created_at),
    };
    if (row.destroyed_at !== null)
        record.destroyedAt = Number(row.destroyed_at);
    if (row.sandbox_id !== null)
        record.sandboxId = row.sandbox_id;
    if (row.session_init_json !== null)
        record.sessionInit = JSON.parse(row.session_init_json);
    if (row.config_options_json !== null)
        record.configOptions = JSON.parse(row.config_options_json);
    if (row.modes_json !== null)
        record.modes = JSON.parse(row.modes_json);
    return record;
}
function toEvent(row) {
    return {
        id: row.id,
        eventIndex: Number(row.event_index),
        sessionId: row.session_id,
        createdAt: Number(row.created_at),
        connectionId: row.connection_id,
        sender: row.sender,
        payload: JSON.parse(row.payload_json),
    };
}
class SqliteBackend {
    #db;
    #owned;
    constructor(db, owned) {
        this.#db = db;
        this.#owned = owned;
    }
    async getRecord(id) {
        const row = this.#db.prepare("SELECT * FROM sessions WHERE id = ?").get(id);
        return row && toSession(row);
    }
    async putRecord(record) {
        const sql = `INSERT INTO sessions (id, agent, agent_session_id, last_connection_id, created_at, destroyed_at, sandbox_id,
        session_init_json, config_options_json, modes_json) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
      ON CONFLICT(id) DO UPDATE SET agent = excluded.agent, agent_session_id = excluded.agent_session_id,
        last_connection_id = excluded.last_connection_id, created_at = excluded.created_at,
        destroyed_at = excluded.destroyed_at, sandbox_id = excluded.sandbox_id, session_init_json = excluded.session_init_json,
        config_options_json = excluded.config_options_json, modes_json = excluded.modes_json`;
        this.#db
            .prepare(sql)
            .run(record.id, record.agent, record.agentSessionId, record.lastConnectionId, record.createdAt, record.destroyedAt ?? null, record.sandboxId ?? null, json(record.sessionInit), json(record.configOptions), json(record.modes));
    }
    async listRecords({ after, offset, limit }) {
        const where = after ? "WHERE (created_at, id) > (?, ?)" : "";
        const sql = `SELECT * FROM sessions ${where} ORDER BY created_at, id LIMIT ? OFFSET ?`;
        const values = [...(after ? [after.number, after.id] : []), limit + 1, offset];
        return this.#db.prepare(sql).all(...values).map((row) => toSession(row));
    }
    async listEvents(sessionId, { after, offset, limit }) {
        const where = after ? "AND (event_index, id) > (?, ?)" : "";
        const sql = `SELECT * FROM events WHERE session_id = ? ${where} ORDER BY event_index, id LIMIT ? OFFSET ?`;
        const values = [sessionId, ...(after ? [after.number, after.id] : []), limit + 1, offset];
        return this.#db.prepare(sql).all(...values).map((row) => toEvent(row));
    }
    async insert(event) {
        const sql = `INSERT INTO events (id, event_index, session_id, created_at, connection_id, sender, payload_json)
      VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`;
        const { changes } = this.#db
            .prepare(sql)
            .run(event.id, event.eventIndex, event.sessionId, event.createdAt, event.connectionId, event.sender, JSON.stringify(event.payload));
        if (Number(changes) > 0)
            return;
        const same = this.#db.prepare("SELECT session_id, event_index FROM events WHERE id = ?").get(event.id);
        if (!same)
            throw new EventIndexConflictError(event.sessionId, event.eventIndex);
        if (same.session_id !== event.sessionId || Number(same.event_index) !== event.eventIndex)
            throw new EventIdConflictError(event.id);
    }
    async lastIndex(sessionId) {
        const row = this.#db.prepare("SELECT max(event_index) AS last FROM events WHERE session_id = ?").get(sessionId);
        return Number(row.last ?? 0);
    }
    async remove(sessionId) {
        this.#db.exec("BEGIN IMMEDIATE");
        try {
            this.#db.prepare("DELETE FROM events WHERE session_id = ?").run(sessionId);
            this.#db.prepare("DELETE FROM sessions WHERE id = ?").run(sessionId);
            this.#db.exec("COMMIT");
        }
        catch (error) {
            this.#db.exec("ROLLBACK");
            throw error;
        }
    }
    async close() {
        if (this.#owned)
            this.#db.close();
    }
}
