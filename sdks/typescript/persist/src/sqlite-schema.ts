import type { SqliteDatabase } from "./sqlite.js";

const TABLES = `
CREATE TABLE IF NOT EXISTS sessions (
  id TEXT PRIMARY KEY, agent TEXT NOT NULL, agent_session_id TEXT NOT NULL, last_connection_id TEXT NOT NULL,
  created_at INTEGER NOT NULL, destroyed_at INTEGER, sandbox_id TEXT, session_init_json TEXT, config_options_json TEXT,
  modes_json TEXT);
CREATE TABLE IF NOT EXISTS events (
  id TEXT PRIMARY KEY, event_index INTEGER NOT NULL, session_id TEXT NOT NULL, created_at INTEGER NOT NULL,
  connection_id TEXT NOT NULL, sender TEXT NOT NULL, payload_json TEXT NOT NULL);`;

const INDEXES = `
CREATE INDEX IF NOT EXISTS idx_events_session_order ON events(session_id, event_index, id);
CREATE INDEX IF NOT EXISTS idx_sessions_order ON sessions(created_at, id);
CREATE UNIQUE INDEX IF NOT EXISTS uq_events_session_index ON events(session_id, event_index);`;

/** Columns that sessions did not have before 0.4. */
const LATER = ["sandbox_id", "config_options_json", "modes_json"];

/** Events of before, with an index where they had none or shared one. */
const COPY = (from: string, index: string) => `
INSERT OR IGNORE INTO events (id, event_index, session_id, created_at, connection_id, sender, payload_json)
SELECT CAST(id AS TEXT), ROW_NUMBER() OVER (PARTITION BY session_id ORDER BY ${index} created_at, id), session_id, created_at,
  connection_id, sender, payload_json FROM ${from};`;

/** Brings the tables of any version of the SDK's own driver to ours, or makes them. */
export function migrate(db: SqliteDatabase): void {
  // Readers do not wait for the writer; what is committed is on disk.
  db.exec("PRAGMA journal_mode = WAL");
  db.exec("PRAGMA synchronous = FULL");
  db.exec("BEGIN IMMEDIATE");
  try {
    legacy(db);
    db.exec(TABLES);
    const there = columns(db, "sessions").map((column) => column.name);
    for (const name of LATER) {
      if (!there.includes(name)) db.exec(`ALTER TABLE sessions ADD COLUMN ${name} TEXT`);
    }
    if (!hasIndex(db) && hasDuplicates(db)) renumber(db, "event_index,");
    db.exec(INDEXES);
    db.exec("COMMIT");
  } catch (error) {
    db.exec("ROLLBACK");
    throw error;
  }
}

interface Column {
  name: string;
  type: string;
}

function columns(db: SqliteDatabase, table: string): Column[] {
  return db.prepare(`PRAGMA table_info(${table})`).all() as Column[];
}

/** Events whose id is a number, or that have no index. */
function legacy(db: SqliteDatabase): void {
  const there = columns(db, "events");
  if (there.length === 0) return;
  const id = there.find((column) => column.name === "id");
  const indexed = there.some((column) => column.name === "event_index");
  if (id?.type.toUpperCase() === "TEXT" && indexed) return;
  renumber(db, indexed ? "event_index," : "");
}

function renumber(db: SqliteDatabase, index: string): void {
  db.exec("ALTER TABLE events RENAME TO events_legacy");
  db.exec("DROP INDEX IF EXISTS idx_events_session_order");
  db.exec(TABLES);
  db.exec(COPY("events_legacy", index));
  db.exec("DROP TABLE events_legacy");
}

function hasIndex(db: SqliteDatabase): boolean {
  return db.prepare("SELECT 1 FROM sqlite_master WHERE name = 'uq_events_session_index'").get() !== undefined;
}

function hasDuplicates(db: SqliteDatabase): boolean {
  const sql = "SELECT 1 FROM events GROUP BY session_id, event_index HAVING count(*) > 1 LIMIT 1";
  return db.prepare(sql).get() !== undefined;
}
