//! Leases: who has which sandbox. That a late owner writes nothing is seen to by triggers
//! (`migrations/0006_nodes.sql`), in the transaction of each write.

use async_trait::async_trait;
use woodfrog_store::{Claim, LeaseStore, Result, Taking};
use woodfrog_store_rows::{Columns, corrupt, count_column, get, id_column, time_column};
use woodfrog_types::node::{Lease, Node};
use woodfrog_types::snapshot::SnapshotPlace;
use woodfrog_types::{NodeId, RunId, SandboxId, SnapshotId};

use crate::PostgresStore;
use crate::client::{Arg, all, begin, change, commit, first};
use crate::text::Text;

const LEASE: &str = "lease";
const NODE: &str = "node";
/// How long it is remembered who had a sandbox that is gone.
const GONE_KEPT_MS: i64 = 24 * 3600 * 1000;

const SHOWN: &str = "sandbox, node, token, (until <= lease_now())::int::bigint AS over, wanted, \
                     refused";

#[async_trait]
impl LeaseStore for PostgresStore {
    fn node(&self) -> Option<&NodeId> {
        self.node.as_ref()
    }

    async fn lease_begin(&self, name: &str) -> Result<()> {
        if self.node.is_none() {
            return Ok(());
        }
        let mut client = self.client().await?;
        let transaction = begin(&mut client, NODE).await?;
        let sql = "INSERT INTO nodes (id, name, process, seen_at) \
                   VALUES (this_node(), $1, this_process(), lease_now()) \
                   ON CONFLICT (id) DO UPDATE \
                   SET name = $1, process = this_process(), seen_at = lease_now()";
        change(&transaction, NODE, sql, &[&Text(name)]).await?;
        for sql in [
            // Of a lone server before: this is that one if there is no other.
            "INSERT INTO leases (sandbox, node, process, token, until) \
             SELECT id, this_node(), this_process(), 1, lease_until() FROM sandboxes \
             WHERE NOT EXISTS (SELECT 1 FROM leases WHERE sandbox = id) \
             AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.id <> this_node())",
            "UPDATE snapshots SET node = this_node() WHERE node IS NULL \
             AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.id <> this_node())",
            "UPDATE builds SET node = this_node() WHERE node IS NULL \
             AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.id <> this_node())",
            "UPDATE runs SET node = this_node() WHERE node IS NULL AND ended_at IS NULL \
             AND NOT EXISTS (SELECT 1 FROM nodes WHERE nodes.id <> this_node())",
            "UPDATE leases SET process = this_process(), token = token + 1, \
             until = lease_until() WHERE node = this_node() AND process <> this_process()",
        ] {
            change(&transaction, LEASE, sql, &[]).await?;
        }
        commit(transaction, LEASE).await
    }

    async fn node_fetch(&self, id: &NodeId) -> Result<Option<Node>> {
        let sql = "SELECT id, name, seen_at FROM nodes WHERE id = $1";
        let client = self.client().await?;
        first(&client, NODE, sql, &[&id.as_str()], |row| {
            Ok(Node {
                id: id_column(row, NODE, "id")?,
                name: get(row, NODE, "name")?,
                seen_at: time_column(row, NODE, "seen_at")?,
            })
        })
        .await
    }

    async fn lease_fetch(&self, sandbox: &SandboxId) -> Result<Option<Lease>> {
        let sql = format!("SELECT {SHOWN} FROM leases WHERE sandbox = $1");
        let client = self.client().await?;
        first(&client, LEASE, &sql, &[&sandbox.as_str()], from_row).await
    }

    async fn lease_take(&self, sandbox: &SandboxId, claim: Claim) -> Result<Taking> {
        if self.node.is_none() {
            return Ok(Taking::Nothing);
        }
        let late = match claim {
            Claim::Released => "",
            Claim::Expired => "OR until <= lease_now()",
        };
        let take = format!(
            "UPDATE leases SET node = this_node(), process = this_process(), \
             token = token + (process IS DISTINCT FROM this_process())::int, \
             until = lease_until(), wanted = NULL, refused = NULL \
             WHERE sandbox = $1 AND (node IS NULL OR node = this_node() {late}) \
             AND EXISTS (SELECT 1 FROM sandboxes WHERE id = $1) RETURNING {SHOWN}"
        );
        let client = self.client().await?;
        let id: [Arg<'_>; 1] = [&sandbox.as_str()];
        if let Some(mine) = first(&client, LEASE, &take, &id, from_row).await? {
            return Ok(Taking::Mine(mine));
        }
        let look = format!(
            "SELECT {SHOWN} FROM leases WHERE sandbox = $1 \
             AND EXISTS (SELECT 1 FROM sandboxes WHERE id = $1)"
        );
        let held = first(&client, LEASE, &look, &id, from_row).await?;
        Ok(held.map_or(Taking::Nothing, Taking::Held))
    }

    async fn lease_release(&self, sandbox: &SandboxId) -> Result<()> {
        let sql = "UPDATE leases SET node = NULL, process = NULL \
                   WHERE sandbox = $1 AND process = this_process()";
        let client = self.client().await?;
        change(&client, LEASE, sql, &[&sandbox.as_str()])
            .await
            .map(drop)
    }

    async fn lease_renew(&self) -> Result<Vec<SandboxId>> {
        if self.node.is_none() {
            return Ok(Vec::new());
        }
        let client = self.client().await?;
        let seen = "UPDATE nodes SET seen_at = lease_now() WHERE id = this_node()";
        change(&client, NODE, seen, &[]).await?;
        let gone = "DELETE FROM leases WHERE until < lease_now() - $1 \
                    AND NOT EXISTS (SELECT 1 FROM sandboxes WHERE id = sandbox)";
        change(&client, LEASE, gone, &[&GONE_KEPT_MS]).await?;
        let renew = "UPDATE leases SET until = lease_until() WHERE process = this_process() \
                     AND node = this_node() \
                     AND EXISTS (SELECT 1 FROM sandboxes WHERE id = sandbox) RETURNING sandbox";
        all(&client, LEASE, renew, &[], |row| {
            id_column(row, LEASE, "sandbox")
        })
        .await
    }

    async fn lease_want(&self, sandbox: &SandboxId) -> Result<()> {
        let sql = "UPDATE leases SET wanted = this_node(), refused = NULL WHERE sandbox = $1";
        let client = self.client().await?;
        change(&client, LEASE, sql, &[&sandbox.as_str()])
            .await
            .map(drop)
    }

    async fn lease_wanted(&self) -> Result<Vec<SandboxId>> {
        let sql = "SELECT sandbox FROM leases WHERE node = this_node() \
                   AND wanted IS NOT NULL AND refused IS NULL ORDER BY sandbox";
        all(&self.client().await?, LEASE, sql, &[], |row| {
            id_column(row, LEASE, "sandbox")
        })
        .await
    }

    async fn lease_refuse(&self, sandbox: &SandboxId, why: &str) -> Result<()> {
        let sql = "UPDATE leases SET refused = $2 WHERE sandbox = $1 AND process = this_process()";
        let client = self.client().await?;
        let args: [Arg<'_>; 2] = [&sandbox.as_str(), &Text(why)];
        change(&client, LEASE, sql, &args).await.map(drop)
    }

    async fn snapshots_here(&self) -> Result<Option<Vec<SnapshotId>>> {
        if self.node.is_none() {
            return Ok(None);
        }
        let sql = "SELECT * FROM snapshots WHERE node = this_node() ORDER BY id";
        let here = all(&self.client().await?, LEASE, sql, &[], |row| {
            let id: SnapshotId = id_column(row, LEASE, "id")?;
            // One that cannot be read may be here, too.
            let away = woodfrog_store_rows::snapshot_from_row(row)
                .is_ok_and(|snapshot| matches!(snapshot.place, SnapshotPlace::Archive { .. }));
            Ok((!away).then_some(id))
        })
        .await?;
        Ok(Some(here.into_iter().flatten().collect()))
    }

    async fn runs_here(&self) -> Result<Option<Vec<RunId>>> {
        if self.node.is_none() {
            return Ok(None);
        }
        let sql = "SELECT id FROM runs WHERE node = this_node() AND ended_at IS NULL ORDER BY id";
        let here = all(&self.client().await?, LEASE, sql, &[], |row| {
            id_column(row, LEASE, "id")
        })
        .await?;
        Ok(Some(here))
    }
}

fn from_row(row: &dyn Columns) -> Result<Lease> {
    let node = |column| -> Result<Option<NodeId>> {
        let text = row.text(LEASE, column)?;
        text.map(|text| text.parse().map_err(|error| corrupt(LEASE, error)))
            .transpose()
    };
    Ok(Lease {
        sandbox: id_column(row, LEASE, "sandbox")?,
        node: node("node")?,
        token: count_column(row, LEASE, "token")?,
        over: get::<i64>(row, LEASE, "over")? != 0,
        wanted: node("wanted")?,
        refused: row.text(LEASE, "refused")?,
    })
}
