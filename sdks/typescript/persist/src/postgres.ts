import type { Pool, PoolConfig } from "pg";
import type { SessionEvent, SessionRecord } from "sandbox-agent";
import { checkOptions, PersistDriver, type Backend, type DriverOptions } from "./driver.js";
import { EventIdConflictError, EventIndexConflictError, InvalidInputError } from "./errors.js";
import type { Range } from "./page.js";

/** Where the sessions are. */
export interface PostgresOptions extends DriverOptions {
  connectionString?: string;
  /** A pool that exists already; it stays open. */
  pool?: Pool;
  /** For a pool of our own. */
  poolConfig?: PoolConfig;
  /** The schema of the tables, made if need be. */
  schema?: string;
}

const SCHEMA = /^[A-Za-z_][A-Za-z0-9_]*$/;
/** Serialises the making of tables: `CREATE … IF NOT EXISTS` twice at once fails. */
const LOCK = 0x77667073;

/** Sessions in Postgres, in the SDK's tables and one index more. */
export async function postgres(options: PostgresOptions = {}): Promise<PersistDriver> {
  const { schema = "public" } = options;
  checkOptions(options);
  if (!SCHEMA.test(schema)) throw new InvalidInputError(`invalid schema name '${schema}'`);
  const pool = options.pool ?? (await connect(options));
  try {
    await prepare(pool, schema);
  } catch (error) {
    if (!options.pool) await pool.end();
    throw error;
  }
  return new PersistDriver(new PostgresBackend(pool, schema, options.pool === undefined), options);
}

async function connect({ connectionString, poolConfig }: PostgresOptions): Promise<Pool> {
  const { default: pg } = await import("pg");
  const pool = new pg.Pool({ ...poolConfig, ...(connectionString === undefined ? {} : { connectionString }) });
  // A connection that breaks while nobody uses it is replaced at the next query.
  pool.on("error", () => {});
  return pool;
}

/** JSON and not JSONB: a payload may have `\u0000` in it, and comes back as it was. */
function tables(schema: string): string {
  return `
    CREATE TABLE IF NOT EXISTS "${schema}".sessions (
      id TEXT PRIMARY KEY, agent TEXT NOT NULL, agent_session_id TEXT NOT NULL, last_connection_id TEXT NOT NULL,
      created_at BIGINT NOT NULL, destroyed_at BIGINT, sandbox_id TEXT, session_init_json JSON, config_options_json JSON, modes_json JSON);
    ALTER TABLE "${schema}".sessions ADD COLUMN IF NOT EXISTS sandbox_id TEXT, ADD COLUMN IF NOT EXISTS config_options_json JSON,
      ADD COLUMN IF NOT EXISTS modes_json JSON;
    CREATE TABLE IF NOT EXISTS "${schema}".events (
      id TEXT PRIMARY KEY, event_index BIGINT NOT NULL, session_id TEXT NOT NULL, created_at BIGINT NOT NULL,
      connection_id TEXT NOT NULL, sender TEXT NOT NULL, payload_json JSON NOT NULL);
    CREATE INDEX IF NOT EXISTS idx_sessions_order ON "${schema}".sessions (created_at, id COLLATE "C");`;
}

/** Indexes that events of other drivers got twice are given anew, in their order. */
function unique(schema: string): string {
  return `
    UPDATE "${schema}".events e SET event_index = n.place FROM (
      SELECT id, row_number() OVER (PARTITION BY session_id ORDER BY event_index, created_at, id) AS place FROM "${schema}".events
      WHERE session_id IN (SELECT session_id FROM "${schema}".events GROUP BY session_id, event_index HAVING count(*) > 1)) n
    WHERE e.id = n.id AND e.event_index <> n.place;
    CREATE UNIQUE INDEX uq_events_session_index ON "${schema}".events (session_id, event_index);`;
}

async function prepare(pool: Pool, schema: string): Promise<void> {
  const client = await pool.connect();
  try {
    await client.query("BEGIN");
    await client.query("SELECT pg_advisory_xact_lock($1)", [LOCK]);
    await client.query(`CREATE SCHEMA IF NOT EXISTS "${schema}"`);
    await client.query(tables(schema));
    const there = await client.query("SELECT 1 FROM pg_indexes WHERE schemaname = $1 AND indexname = 'uq_events_session_index'", [schema]);
    if (there.rowCount === 0) await client.query(unique(schema));
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK").catch(() => {});
    throw error;
  } finally {
    client.release();
  }
}

type Row = Record<string, unknown>;

const json = (value: unknown) => (value === undefined ? null : JSON.stringify(value));

/** JSON columns are asked for as text: SQL's NULL and JSON's null differ, and pg makes one of them. */
const SESSION = `id, agent, agent_session_id, last_connection_id, created_at, destroyed_at, sandbox_id,
  session_init_json::text AS init, config_options_json::text AS options, modes_json::text AS modes`;
const EVENT = "id, event_index, session_id, created_at, connection_id, sender, payload_json::text AS payload";

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
  if (row.init !== null) record.sessionInit = JSON.parse(row.init as string);
  if (row.options !== null) record.configOptions = JSON.parse(row.options as string);
  if (row.modes !== null) record.modes = JSON.parse(row.modes as string);
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
    payload: JSON.parse(row.payload as string),
  };
}

class PostgresBackend implements Backend {
  readonly #pool: Pool;
  readonly #sessions: string;
  readonly #events: string;
  readonly #owned: boolean;

  constructor(pool: Pool, schema: string, owned: boolean) {
    this.#pool = pool;
    this.#sessions = `"${schema}".sessions`;
    this.#events = `"${schema}".events`;
    this.#owned = owned;
  }

  async getRecord(id: string): Promise<SessionRecord | undefined> {
    const [row] = await this.#rows(`SELECT ${SESSION} FROM ${this.#sessions} WHERE id = $1`, [id]);
    return row && toSession(row);
  }

  async putRecord(record: SessionRecord): Promise<void> {
    const sql = `INSERT INTO ${this.#sessions} (id, agent, agent_session_id, last_connection_id, created_at, destroyed_at, sandbox_id,
        session_init_json, config_options_json, modes_json) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
      ON CONFLICT (id) DO UPDATE SET agent = excluded.agent, agent_session_id = excluded.agent_session_id,
        last_connection_id = excluded.last_connection_id, created_at = excluded.created_at,
        destroyed_at = excluded.destroyed_at, sandbox_id = excluded.sandbox_id, session_init_json = excluded.session_init_json,
        config_options_json = excluded.config_options_json, modes_json = excluded.modes_json`;
    const { id, agent, agentSessionId, lastConnectionId, createdAt, destroyedAt, sandboxId } = record;
    const fixed = [id, agent, agentSessionId, lastConnectionId, createdAt, destroyedAt ?? null, sandboxId ?? null];
    await this.#rows(sql, [...fixed, json(record.sessionInit), json(record.configOptions), json(record.modes)]);
  }

  async listRecords({ after, offset, limit }: Range): Promise<SessionRecord[]> {
    const where = after ? `WHERE (created_at, id COLLATE "C") > ($3, $4)` : "";
    const sql = `SELECT ${SESSION} FROM ${this.#sessions} ${where} ORDER BY created_at, id COLLATE "C" LIMIT $1 OFFSET $2`;
    const rows = await this.#rows(sql, [limit + 1, offset, ...(after ? [after.number, after.id] : [])]);
    return rows.map(toSession);
  }

  async listEvents(sessionId: string, { after, offset, limit }: Range): Promise<SessionEvent[]> {
    const where = after ? `AND (event_index, id COLLATE "C") > ($4, $5)` : "";
    const sql = `SELECT ${EVENT} FROM ${this.#events} WHERE session_id = $1 ${where} ORDER BY event_index, id COLLATE "C" LIMIT $2 OFFSET $3`;
    const rows = await this.#rows(sql, [sessionId, limit + 1, offset, ...(after ? [after.number, after.id] : [])]);
    return rows.map(toEvent);
  }

  async insert(event: SessionEvent): Promise<void> {
    const sql = `INSERT INTO ${this.#events} (id, event_index, session_id, created_at, connection_id, sender, payload_json)
      VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING RETURNING 1`;
    const { id, eventIndex, sessionId, createdAt, connectionId, sender, payload } = event;
    const made = await this.#rows(sql, [id, eventIndex, sessionId, createdAt, connectionId, sender, JSON.stringify(payload)]);
    if (made.length > 0) return;
    const [same] = await this.#rows(`SELECT session_id, event_index FROM ${this.#events} WHERE id = $1`, [id]);
    if (!same) throw new EventIndexConflictError(sessionId, eventIndex);
    if (same.session_id !== sessionId || Number(same.event_index) !== eventIndex) throw new EventIdConflictError(id);
  }

  async lastIndex(sessionId: string): Promise<number> {
    const [row] = await this.#rows(`SELECT max(event_index) AS last FROM ${this.#events} WHERE session_id = $1`, [sessionId]);
    return Number(row?.last ?? 0);
  }

  async remove(sessionId: string): Promise<void> {
    const sql = `WITH gone AS (DELETE FROM ${this.#events} WHERE session_id = $1) DELETE FROM ${this.#sessions} WHERE id = $1`;
    await this.#rows(sql, [sessionId]);
  }

  async close(): Promise<void> {
    if (this.#owned) await this.#pool.end();
  }

  async #rows(sql: string, values: unknown[]): Promise<Row[]> {
    return (await this.#pool.query<Row>(sql, values)).rows;
  }
}
