//! How far the time of sandboxes is booked.

use async_trait::async_trait;
use woodfrog_store::{MeterStore, Result};
use woodfrog_store_rows::{id_column, meter_from_row, to_sql_int};
use woodfrog_types::SandboxId;
use woodfrog_types::usage::{Meter, Rung, UsageEntry};

use crate::PostgresStore;
use crate::client::{Arg, all, begin, change, commit, first};
use crate::runs::book_for_runs;

const WHAT: &str = "meter";

#[async_trait]
impl MeterStore for PostgresStore {
    async fn meter_fetch(&self, sandbox: &SandboxId) -> Result<Option<Meter>> {
        let sql = "SELECT * FROM meters WHERE sandbox = $1";
        let args: [Arg<'_>; 1] = [&sandbox.as_str()];
        first(&self.client().await?, WHAT, sql, &args, meter_from_row).await
    }

    async fn meter_behind(&self, limit: usize) -> Result<Vec<SandboxId>> {
        let sql = "SELECT sandbox FROM meters_behind ORDER BY sandbox LIMIT $1";
        let args: [Arg<'_>; 1] = [&to_sql_int(limit)];
        all(&self.client().await?, WHAT, sql, &args, |row| {
            id_column(row, WHAT, "sandbox")
        })
        .await
    }

    async fn meter_on(&self, after: Option<&SandboxId>, limit: usize) -> Result<Vec<Meter>> {
        let sql = "SELECT * FROM meters WHERE rung IS NOT NULL AND sandbox > $1 \
                   ORDER BY sandbox LIMIT $2";
        let after = after.map_or("", SandboxId::as_str);
        let args: [Arg<'_>; 2] = [&after, &to_sql_int(limit)];
        all(&self.client().await?, WHAT, sql, &args, meter_from_row).await
    }

    async fn meter_put(&self, meter: &Meter, entries: Vec<UsageEntry>) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WHAT).await?;
        book_for_runs(&transaction, &entries).await?;
        let sql = "INSERT INTO meters \
                   (sandbox, workspace, seq, rung, since, cpu_millis, memory_mib, disk_mib, saved) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                   ON CONFLICT (sandbox) DO UPDATE SET workspace = $2, seq = $3, rung = $4, \
                   since = $5, cpu_millis = $6, memory_mib = $7, disk_mib = $8, saved = $9";
        let args: [Arg<'_>; 9] = [
            &meter.sandbox.as_str(),
            &meter.workspace.as_str(),
            &to_sql_int(meter.seq),
            &meter.on.map(|(rung, _)| Rung::as_str(rung)),
            &meter.on.map(|(_, since)| since.as_millis()),
            &to_sql_int(meter.cpu_millis),
            &to_sql_int(meter.memory_mib),
            &to_sql_int(meter.disk_mib),
            &to_sql_int(meter.saved),
        ];
        change(&transaction, WHAT, sql, &args).await?;
        // Unless it has grown meanwhile: an append that is under way waits for this row, and adds
        // it again.
        let sql = "DELETE FROM meters_behind WHERE sandbox = $1 AND NOT EXISTS \
                   (SELECT 1 FROM event_logs WHERE sandbox = $1 AND last_seq > $2)";
        let args: [Arg<'_>; 2] = [&meter.sandbox.as_str(), &to_sql_int(meter.seq)];
        change(&transaction, WHAT, sql, &args).await?;
        commit(transaction, WHAT).await
    }
}
