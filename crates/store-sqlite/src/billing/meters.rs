//! How far the time of sandboxes is booked.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::{MeterStore, Result};
use woodfrog_types::SandboxId;
use woodfrog_types::usage::{Meter, Rung, UsageEntry};

use crate::SqliteStore;
use crate::reader::{all, first};
use crate::runs::book_for_runs;
use crate::stored::{id_column, meter_from_row, to_sql_int};
use crate::writer::change;

const WHAT: &str = "meter";

#[async_trait]
impl MeterStore for SqliteStore {
    async fn meter_fetch(&self, sandbox: &SandboxId) -> Result<Option<Meter>> {
        let sandbox = sandbox.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM meters WHERE sandbox = ?1";
            first(conn, WHAT, sql, [sandbox.as_str()], meter_from_row)
        })
        .await
    }

    async fn meter_behind(&self, limit: usize) -> Result<Vec<SandboxId>> {
        self.read(move |conn| {
            let sql = "SELECT sandbox FROM meters_behind ORDER BY sandbox LIMIT ?1";
            all(conn, WHAT, sql, [to_sql_int(limit)], |row| {
                id_column(row, WHAT, "sandbox")
            })
        })
        .await
    }

    async fn meter_on(&self, after: Option<&SandboxId>, limit: usize) -> Result<Vec<Meter>> {
        let after = after.map_or_else(String::new, ToString::to_string);
        self.read(move |conn| {
            let sql = "SELECT * FROM meters WHERE rung IS NOT NULL AND sandbox > ?1 \
                       ORDER BY sandbox LIMIT ?2";
            let params = params![after, to_sql_int(limit)];
            all(conn, WHAT, sql, params, meter_from_row)
        })
        .await
    }

    async fn meter_put(&self, meter: &Meter, entries: Vec<UsageEntry>) -> Result<()> {
        let meter = meter.clone();
        self.write(move |conn| {
            book_for_runs(conn, &entries)?;
            put(conn, &meter)
        })
        .await
    }
}

fn put(conn: &Connection, meter: &Meter) -> Result<()> {
    let sql = "INSERT INTO meters \
               (sandbox, workspace, seq, rung, since, cpu_millis, memory_mib, disk_mib, saved) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) \
               ON CONFLICT (sandbox) DO UPDATE SET workspace = ?2, seq = ?3, rung = ?4, \
               since = ?5, cpu_millis = ?6, memory_mib = ?7, disk_mib = ?8, saved = ?9";
    let params = params![
        meter.sandbox.as_str(),
        meter.workspace.as_str(),
        to_sql_int(meter.seq),
        meter.on.map(|(rung, _)| Rung::as_str(rung)),
        meter.on.map(|(_, since)| since.as_millis()),
        to_sql_int(meter.cpu_millis),
        to_sql_int(meter.memory_mib),
        to_sql_int(meter.disk_mib),
        to_sql_int(meter.saved),
    ];
    change(conn, WHAT, sql, params)?;
    // Unless it has grown meanwhile.
    let sql = "DELETE FROM meters_behind WHERE sandbox = ?1 AND NOT EXISTS \
               (SELECT 1 FROM event_logs WHERE sandbox = ?1 AND last_seq > ?2)";
    let params = params![meter.sandbox.as_str(), to_sql_int(meter.seq)];
    change(conn, WHAT, sql, params).map(drop)
}
