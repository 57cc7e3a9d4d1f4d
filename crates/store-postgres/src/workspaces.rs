//! Workspaces, members, limits.

use async_trait::async_trait;
use deadpool_postgres::GenericClient;
use woodfrog_store::cursor::List;
use woodfrog_store::{Result, StoreError, WorkspaceStore};
use woodfrog_store_rows::{
    limits_from_row, limits_to_json, member_from_row, to_sql_int, workspace_from_row,
    workspace_role_from_row,
};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::workspace::{LimitsRecord, Member, Role, UserId, Workspace};
use woodfrog_types::{Timestamp, WorkspaceId};

use crate::PostgresStore;
use crate::client::{Arg, all, begin, change, commit, finds, first, refused};
use crate::listing::Listing;
use crate::text::Text;

const WORKSPACE: &str = "workspace";
const MEMBER: &str = "member";
const LIMITS: &str = "limits";
const EXISTS: &str = "SELECT 1 FROM workspaces WHERE id = $1";

#[async_trait]
impl WorkspaceStore for PostgresStore {
    async fn workspace_insert(&self, workspace: &Workspace) -> Result<()> {
        if workspace.generation != 1 {
            return Err(StoreError::Conflict { what: WORKSPACE });
        }
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WORKSPACE).await?;
        let sql = "INSERT INTO workspaces (id, name, owner, generation, created_at, \
                   removing_since) VALUES ($1, $2, $3, 1, $4, $5)";
        let args: [Arg<'_>; 5] = [
            &workspace.id.as_str(),
            &Text(&workspace.name),
            &Text(workspace.owner.as_str()),
            &workspace.created_at.as_millis(),
            &workspace.removing_since.map(Timestamp::as_millis),
        ];
        change(&transaction, WORKSPACE, sql, &args).await?;
        let owner = Member {
            workspace: workspace.id.clone(),
            user: workspace.owner.clone(),
            role: Role::Owner,
            joined_at: workspace.created_at,
        };
        add(&transaction, &owner).await?;
        commit(transaction, WORKSPACE).await
    }

    async fn workspace_update(&self, workspace: &Workspace) -> Result<()> {
        let sql = "UPDATE workspaces SET name = $2, generation = $3, removing_since = $4 \
                   WHERE id = $1 AND generation = $3::bigint - 1";
        let args: [Arg<'_>; 4] = [
            &workspace.id.as_str(),
            &Text(&workspace.name),
            &to_sql_int(workspace.generation),
            &workspace.removing_since.map(Timestamp::as_millis),
        ];
        let client = self.client().await?;
        if change(&client, WORKSPACE, sql, &args).await? > 0 {
            return Ok(());
        }
        Err(refused(&client, WORKSPACE, EXISTS, workspace.id.as_str()).await)
    }

    async fn workspace_fetch(&self, id: &WorkspaceId) -> Result<Option<Workspace>> {
        let sql = "SELECT * FROM workspaces WHERE id = $1";
        let client = self.client().await?;
        first(&client, WORKSPACE, sql, &[&id.as_str()], workspace_from_row).await
    }

    async fn workspace_list(&self, page: &PageRequest) -> Result<Page<Workspace>> {
        let list = Listing::new(
            WORKSPACE,
            List::Workspaces,
            "workspaces",
            "created_at",
            false,
        );
        let convert = |row: &dyn woodfrog_store_rows::Columns| workspace_from_row(row).map(Some);
        list.page(&self.client().await?, page, convert, |last: &Workspace| {
            (last.created_at.as_millis(), last.id.as_str().to_owned())
        })
        .await
    }

    async fn workspace_of(&self, user: &UserId) -> Result<Vec<(Workspace, Role)>> {
        let sql = "SELECT w.*, m.role AS role FROM members m \
                   JOIN workspaces w ON w.id = m.workspace \
                   WHERE m.user_name = $1 ORDER BY w.created_at, w.id";
        let args: [Arg<'_>; 1] = [&Text(user.as_str())];
        let client = self.client().await?;
        all(&client, WORKSPACE, sql, &args, workspace_role_from_row).await
    }

    async fn workspace_removing(&self) -> Result<Vec<Workspace>> {
        let sql = "SELECT * FROM workspaces WHERE removing_since IS NOT NULL \
                   ORDER BY removing_since, id";
        all(
            &self.client().await?,
            WORKSPACE,
            sql,
            &[],
            workspace_from_row,
        )
        .await
    }

    async fn workspace_purge(&self, id: &WorkspaceId) -> Result<bool> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, WORKSPACE).await?;
        for sql in [
            "DELETE FROM members WHERE workspace = $1",
            "DELETE FROM workspace_limits WHERE workspace = $1",
            "DELETE FROM workspace_sleep WHERE workspace = $1",
            "DELETE FROM api_keys WHERE workspace = $1",
        ] {
            change(&transaction, WORKSPACE, sql, &[&id.as_str()]).await?;
        }
        let sql = "DELETE FROM workspaces WHERE id = $1";
        let removed = change(&transaction, WORKSPACE, sql, &[&id.as_str()]).await?;
        commit(transaction, WORKSPACE).await?;
        Ok(removed > 0)
    }

    async fn member_insert(&self, member: &Member) -> Result<()> {
        let mut client = self.client().await?;
        let transaction = begin(&mut client, MEMBER).await?;
        // Locked, so that the workspace cannot go meanwhile.
        let sql = "SELECT 1 FROM workspaces WHERE id = $1 FOR SHARE";
        if !finds(&transaction, WORKSPACE, sql, &[&member.workspace.as_str()]).await? {
            return Err(StoreError::NotFound { what: WORKSPACE });
        }
        add(&transaction, member).await?;
        commit(transaction, MEMBER).await
    }

    async fn member_update(
        &self,
        workspace: &WorkspaceId,
        user: &UserId,
        role: Role,
    ) -> Result<()> {
        let sql = "UPDATE members SET role = $3 WHERE workspace = $1 AND user_name = $2";
        let args: [Arg<'_>; 3] = [&workspace.as_str(), &Text(user.as_str()), &role.as_str()];
        match change(&self.client().await?, MEMBER, sql, &args).await? {
            0 => Err(StoreError::NotFound { what: MEMBER }),
            _ => Ok(()),
        }
    }

    async fn member_remove(&self, workspace: &WorkspaceId, user: &UserId) -> Result<bool> {
        let sql = "DELETE FROM members WHERE workspace = $1 AND user_name = $2";
        let args: [Arg<'_>; 2] = [&workspace.as_str(), &Text(user.as_str())];
        Ok(change(&self.client().await?, MEMBER, sql, &args).await? > 0)
    }

    async fn member_fetch(&self, workspace: &WorkspaceId, user: &UserId) -> Result<Option<Member>> {
        let sql = "SELECT * FROM members WHERE workspace = $1 AND user_name = $2";
        let args: [Arg<'_>; 2] = [&workspace.as_str(), &Text(user.as_str())];
        first(&self.client().await?, MEMBER, sql, &args, member_from_row).await
    }

    async fn member_list(&self, workspace: &WorkspaceId) -> Result<Vec<Member>> {
        let sql = "SELECT * FROM members WHERE workspace = $1 ORDER BY joined_at, user_name";
        let args: [Arg<'_>; 1] = [&workspace.as_str()];
        all(&self.client().await?, MEMBER, sql, &args, member_from_row).await
    }

    async fn limits_fetch(&self, workspace: &WorkspaceId) -> Result<Option<LimitsRecord>> {
        let sql = "SELECT * FROM workspace_limits WHERE workspace = $1";
        let args: [Arg<'_>; 1] = [&workspace.as_str()];
        first(&self.client().await?, LIMITS, sql, &args, limits_from_row).await
    }

    async fn limits_put(&self, limits: &LimitsRecord) -> Result<()> {
        let first = "INSERT INTO workspace_limits (workspace, limits, generation, updated_at) \
                     VALUES ($1, $2, $3, $4) ON CONFLICT (workspace) DO NOTHING";
        let next = "UPDATE workspace_limits SET limits = $2, generation = $3, updated_at = $4 \
                    WHERE workspace = $1 AND generation = $3::bigint - 1";
        let sql = if limits.generation == 1 { first } else { next };
        let stored = limits_to_json(&limits.limits)?;
        let args: [Arg<'_>; 4] = [
            &limits.workspace.as_str(),
            &stored,
            &to_sql_int(limits.generation),
            &limits.updated_at.as_millis(),
        ];
        match change(&self.client().await?, LIMITS, sql, &args).await? {
            0 => Err(StoreError::Conflict { what: LIMITS }),
            _ => Ok(()),
        }
    }
}

async fn add(client: &impl GenericClient, member: &Member) -> Result<()> {
    let sql = "INSERT INTO members (workspace, user_name, role, joined_at) \
               VALUES ($1, $2, $3, $4)";
    let args: [Arg<'_>; 4] = [
        &member.workspace.as_str(),
        &Text(member.user.as_str()),
        &member.role.as_str(),
        &member.joined_at.as_millis(),
    ];
    change(client, MEMBER, sql, &args).await.map(drop)
}
