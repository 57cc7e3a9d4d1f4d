import type { SessionEvent, SessionRecord } from "sandbox-agent";
import { checkOptions, PersistDriver, type Backend, type DriverOptions } from "./driver.js";
import { EventIdConflictError, EventIndexConflictError, InvalidInputError } from "./errors.js";
import type { Range } from "./page.js";
import { migrate } from "./sqlite-schema.js";

/** What is needed of a database: `DatabaseSync` of node:sqlite has it, so has better-sqlite3. */
export interface SqliteDatabase {
  exec(sql: string): unknown;
  prepare(sql: string): {
    run(...values: unknown[]): { changes: number | bigint };
    get(...values: unknown[]): unknown;
    all(...values: unknown[]): unknown[];
  };
  close(): unknown;
}

/** Where the sessions are. */
export interface SqliteOptions extends DriverOptions {
  /** A file, `:memory:` if absent. */
  filename?: string;
  /** A database that is open already and stays open. */
  database?: SqliteDatabase;
  /** Milliseconds to wait for another writer. */
  busyTimeoutMs?: number;
}

/**
 * Sessions in an SQLite database, in the SDK's tables and one index more. Opens a file with
 * node:sqlite, or with better-sqlite3 where that is not there; an event is on disk when it is said
 * to be stored.
 */
export async function sqlite(options: SqliteOptions = {}): Promise<PersistDriver> {
  const { filename = ":memory:", busyTimeoutMs = 5000 } = options;
  checkOptions(options);
  if (!Number.isSafeInteger(busyTimeoutMs) || busyTimeoutMs < 0) throw new InvalidInputError("busyTimeoutMs must be 0 or more");
  const database = options.database ?? (await open(filename));
  try {
    database.exec(`PRAGMA busy_timeout = ${busyTimeoutMs}`);
    migrate(database);
  } catch (error) {
    if (!options.database) database.close();
    throw error;
  }
  return new PersistDriver(new SqliteBackend(database, options.database === undefined), options);
}

async function open(filename: string): Promise<SqliteDatabase> {
  try {
    const { DatabaseSync } = await import("node:sqlite");
    return new DatabaseSync(filename) as unknown as SqliteDatabase;
  } catch (error) {
    if ((error as { code?: string }).code !== "ERR_UNKNOWN_BUILTIN_MODULE") throw error;
  }
  const name = "better-sqlite3";
  const module = await import(name).catch(() => {
    throw new InvalidInputError("sqlite needs Node 22.13, or the package better-sqlite3, or the option `database`");
  });
  return new module.default(filename) as SqliteDatabase;
}

type Row = Record<string, unknown>;

const json = (value: unknown) => (value === undefined ? null : JSON.stringify(value));

function toSession(row: Row): SessionRecord {
  const record: Record<string, unknown> = {
    id: row.id,
    agent: row.agent,
    agentSessionId: row.agent_session_id,
    lastConnectionId: row.last_connection_id,
    createdAt: Number(row.created_at),
  };
  if (row.destroyed_at !== null) record.destroyedAt = Number(row.destroyed_at);
  if (row.sandbox_id !== null) record.sandboxId = row.sandbox_id;
  if (row.session_init_json !== null) record.sessionInit = JSON.parse(row.session_init_json as string);
  if (row.config_options_json !== null) record.configOptions = JSON.parse(row.config_options_json as string);
  if (row.modes_json !== null) record.modes = JSON.parse(row.modes_json as string);
  return record as unknown as SessionRecord;
}

function toEvent(row: Row): SessionEvent {
  return {
    id: row.id as string,
    eventIndex: Number(row.event_index),
    sessionId: row.session_id as string,
    createdAt: Number(row.created_at),
    connectionId: row.connection_id as string,
    sender: row.sender as SessionEvent["sender"],
    payload: JSON.parse(row.payload_json as string),
  };
}

class SqliteBackend implements Backend {
  readonly #db: SqliteDatabase;
  readonly #owned: boolean;

  constructor(db: SqliteDatabase, owned: boolean) {
    this.#db = db;
    this.#owned = owned;
  }

  async getRecord(id: string): Promise<SessionRecord | undefined> {
    const row = this.#db.prepare("SELECT * FROM sessions WHERE id = ?").get(id) as Row | undefined;
    return row && toSession(row);
  }

  async putRecord(record: SessionRecord): Promise<void> {
    const sql = `INSERT INTO sessions (id, agent, agent_session_id, last_connection_id, created_at, destroyed_at, sandbox_id,
        session_init_json, config_options_json, modes_json) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
      ON CONFLICT(id) DO UPDATE SET agent = excluded.agent, agent_session_id = excluded.agent_session_id,
        last_connection_id = excluded.last_connection_id, created_at = excluded.created_at,
        destroyed_at = excluded.destroyed_at, sandbox_id = excluded.sandbox_id, session_init_json = excluded.session_init_json,
        config_options_json = excluded.config_options_json, modes_json = excluded.modes_json`;
    this.#db
      .prepare(sql)
      .run(
        record.id,
        record.agent,
        record.agentSessionId,
        record.lastConnectionId,
        record.createdAt,
        record.destroyedAt ?? null,
        record.sandboxId ?? null,
        json(record.sessionInit),
        json(record.configOptions),
        json(record.modes),
      );
  }

  async listRecords({ after, offset, limit }: Range): Promise<SessionRecord[]> {
    const where = after ? "WHERE (created_at, id) > (?, ?)" : "";
    const sql = `SELECT * FROM sessions ${where} ORDER BY created_at, id LIMIT ? OFFSET ?`;
    const values = [...(after ? [after.number, after.id] : []), limit + 1, offset];
    return this.#db.prepare(sql).all(...values).map((row) => toSession(row as Row));
  }

  async listEvents(sessionId: string, { after, offset, limit }: Range): Promise<SessionEvent[]> {
    const where = after ? "AND (event_index, id) > (?, ?)" : "";
    const sql = `SELECT * FROM events WHERE session_id = ? ${where} ORDER BY event_index, id LIMIT ? OFFSET ?`;
    const values = [sessionId, ...(after ? [after.number, after.id] : []), limit + 1, offset];
    return this.#db.prepare(sql).all(...values).map((row) => toEvent(row as Row));
  }

  async insert(event: SessionEvent): Promise<void> {
    const sql = `INSERT INTO events (id, event_index, session_id, created_at, connection_id, sender, payload_json)
      VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING`;
    const { changes } = this.#db
      .prepare(sql)
      .run(event.id, event.eventIndex, event.sessionId, event.createdAt, event.connectionId, event.sender, JSON.stringify(event.payload));
    if (Number(changes) > 0) return;
    const same = this.#db.prepare("SELECT session_id, event_index FROM events WHERE id = ?").get(event.id) as Row | undefined;
    if (!same) throw new EventIndexConflictError(event.sessionId, event.eventIndex);
    if (same.session_id !== event.sessionId || Number(same.event_index) !== event.eventIndex) throw new EventIdConflictError(event.id);
  }

  async lastIndex(sessionId: string): Promise<number> {
    const row = this.#db.prepare("SELECT max(event_index) AS last FROM events WHERE session_id = ?").get(sessionId) as Row;
    return Number(row.last ?? 0);
  }

  async remove(sessionId: string): Promise<void> {
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      this.#db.prepare("DELETE FROM events WHERE session_id = ?").run(sessionId);
      this.#db.prepare("DELETE FROM sessions WHERE id = ?").run(sessionId);
      this.#db.exec("COMMIT");
    } catch (error) {
      this.#db.exec("ROLLBACK");
      throw error;
    }
  }

  async close(): Promise<void> {
    if (this.#owned) this.#db.close();
  }
}
