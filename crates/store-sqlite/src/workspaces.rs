//! Workspaces, members, limits.

use async_trait::async_trait;
use rusqlite::{Connection, params};
use woodfrog_store::cursor::{self, List};
use woodfrog_store::{Result, StoreError, WorkspaceStore};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::workspace::{LimitsRecord, Member, Role, UserId, Workspace};
use woodfrog_types::{Timestamp, WorkspaceId};

use crate::SqliteStore;
use crate::reader::{all, first};
use crate::stored::{
    limits_from_row, limits_to_json, member_from_row, to_sql_int, workspace_from_row,
    workspace_role_from_row,
};
use crate::writer::change;

const WORKSPACE: &str = "workspace";
const MEMBER: &str = "member";
const LIMITS: &str = "limits";

const LIST: &str = "SELECT * FROM workspaces WHERE (created_at, id) > (?1, ?2) \
     ORDER BY created_at, id LIMIT ?3";
const OF: &str = "SELECT w.*, m.role AS role FROM members m JOIN workspaces w ON w.id = m.workspace \
     WHERE m.user_name = ?1 ORDER BY w.created_at, w.id";

#[async_trait]
impl WorkspaceStore for SqliteStore {
    async fn workspace_insert(&self, workspace: &Workspace) -> Result<()> {
        if workspace.generation != 1 {
            return Err(StoreError::Conflict { what: WORKSPACE });
        }
        let workspace = workspace.clone();
        self.write(move |conn| {
            let sql = "INSERT INTO workspaces (id, name, owner, generation, created_at, \
                       removing_since) VALUES (?1, ?2, ?3, 1, ?4, ?5)";
            let params = params![
                workspace.id.as_str(),
                workspace.name,
                workspace.owner.as_str(),
                workspace.created_at.as_millis(),
                workspace.removing_since.map(Timestamp::as_millis),
            ];
            change(conn, WORKSPACE, sql, params)?;
            let owner = Member {
                workspace: workspace.id,
                user: workspace.owner,
                role: Role::Owner,
                joined_at: workspace.created_at,
            };
            add(conn, &owner)
        })
        .await
    }

    async fn workspace_update(&self, workspace: &Workspace) -> Result<()> {
        let workspace = workspace.clone();
        self.write(move |conn| {
            let sql = "UPDATE workspaces SET name = ?2, generation = ?3, removing_since = ?4 \
                       WHERE id = ?1 AND generation = ?3 - 1";
            let params = params![
                workspace.id.as_str(),
                workspace.name,
                to_sql_int(workspace.generation),
                workspace.removing_since.map(Timestamp::as_millis),
            ];
            if change(conn, WORKSPACE, sql, params)? > 0 {
                return Ok(());
            }
            match fetch(conn, &workspace.id)? {
                Some(_) => Err(StoreError::Conflict { what: WORKSPACE }),
                None => Err(StoreError::NotFound { what: WORKSPACE }),
            }
        })
        .await
    }

    async fn workspace_fetch(&self, id: &WorkspaceId) -> Result<Option<Workspace>> {
        let id = id.clone();
        self.read(move |conn| fetch(conn, &id)).await
    }

    async fn workspace_list(&self, page: &PageRequest) -> Result<Page<Workspace>> {
        let page = page.clone();
        self.read(move |conn| list(conn, &page)).await
    }

    async fn workspace_of(&self, user: &UserId) -> Result<Vec<(Workspace, Role)>> {
        let user = user.clone();
        self.read(move |conn| {
            all(
                conn,
                WORKSPACE,
                OF,
                [user.as_str()],
                workspace_role_from_row,
            )
        })
        .await
    }

    async fn workspace_removing(&self) -> Result<Vec<Workspace>> {
        self.read(move |conn| {
            let sql = "SELECT * FROM workspaces WHERE removing_since IS NOT NULL \
                       ORDER BY removing_since, id";
            all(conn, WORKSPACE, sql, [], workspace_from_row)
        })
        .await
    }

    async fn workspace_purge(&self, id: &WorkspaceId) -> Result<bool> {
        let id = id.clone();
        self.write(move |conn| {
            for sql in [
                "DELETE FROM members WHERE workspace = ?1",
                "DELETE FROM workspace_limits WHERE workspace = ?1",
                "DELETE FROM workspace_sleep WHERE workspace = ?1",
                "DELETE FROM api_keys WHERE workspace = ?1",
            ] {
                change(conn, WORKSPACE, sql, [id.as_str()])?;
            }
            let sql = "DELETE FROM workspaces WHERE id = ?1";
            Ok(change(conn, WORKSPACE, sql, [id.as_str()])? > 0)
        })
        .await
    }

    async fn member_insert(&self, member: &Member) -> Result<()> {
        let member = member.clone();
        self.write(move |conn| match fetch(conn, &member.workspace)? {
            Some(_) => add(conn, &member),
            None => Err(StoreError::NotFound { what: WORKSPACE }),
        })
        .await
    }

    async fn member_update(
        &self,
        workspace: &WorkspaceId,
        user: &UserId,
        role: Role,
    ) -> Result<()> {
        let (workspace, user) = (workspace.clone(), user.clone());
        self.write(move |conn| {
            let sql = "UPDATE members SET role = ?3 WHERE workspace = ?1 AND user_name = ?2";
            let params = params![workspace.as_str(), user.as_str(), role.as_str()];
            match change(conn, MEMBER, sql, params)? {
                0 => Err(StoreError::NotFound { what: MEMBER }),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn member_remove(&self, workspace: &WorkspaceId, user: &UserId) -> Result<bool> {
        let (workspace, user) = (workspace.clone(), user.clone());
        self.write(move |conn| {
            let sql = "DELETE FROM members WHERE workspace = ?1 AND user_name = ?2";
            Ok(change(conn, MEMBER, sql, [workspace.as_str(), user.as_str()])? > 0)
        })
        .await
    }

    async fn member_fetch(&self, workspace: &WorkspaceId, user: &UserId) -> Result<Option<Member>> {
        let (workspace, user) = (workspace.clone(), user.clone());
        self.read(move |conn| {
            let sql = "SELECT * FROM members WHERE workspace = ?1 AND user_name = ?2";
            let params = [workspace.as_str(), user.as_str()];
            first(conn, MEMBER, sql, params, member_from_row)
        })
        .await
    }

    async fn member_list(&self, workspace: &WorkspaceId) -> Result<Vec<Member>> {
        let workspace = workspace.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM members WHERE workspace = ?1 ORDER BY joined_at, user_name";
            all(conn, MEMBER, sql, [workspace.as_str()], member_from_row)
        })
        .await
    }

    async fn limits_fetch(&self, workspace: &WorkspaceId) -> Result<Option<LimitsRecord>> {
        let workspace = workspace.clone();
        self.read(move |conn| {
            let sql = "SELECT * FROM workspace_limits WHERE workspace = ?1";
            first(conn, LIMITS, sql, [workspace.as_str()], limits_from_row)
        })
        .await
    }

    async fn limits_put(&self, limits: &LimitsRecord) -> Result<()> {
        let limits = limits.clone();
        self.write(move |conn| {
            let sql = "INSERT INTO workspace_limits (workspace, limits, generation, updated_at) \
                       SELECT ?1, ?2, ?3, ?4 WHERE ?3 = 1 OR EXISTS \
                       (SELECT 1 FROM workspace_limits WHERE workspace = ?1) \
                       ON CONFLICT (workspace) DO UPDATE \
                       SET limits = ?2, generation = ?3, updated_at = ?4 WHERE generation = ?3 - 1";
            let params = params![
                limits.workspace.as_str(),
                limits_to_json(&limits.limits)?,
                to_sql_int(limits.generation),
                limits.updated_at.as_millis(),
            ];
            match change(conn, LIMITS, sql, params)? {
                0 => Err(StoreError::Conflict { what: LIMITS }),
                _ => Ok(()),
            }
        })
        .await
    }
}

fn fetch(conn: &Connection, id: &WorkspaceId) -> Result<Option<Workspace>> {
    let sql = "SELECT * FROM workspaces WHERE id = ?1";
    first(conn, WORKSPACE, sql, [id.as_str()], workspace_from_row)
}

fn add(conn: &Connection, member: &Member) -> Result<()> {
    let sql = "INSERT INTO members (workspace, user_name, role, joined_at) \
               VALUES (?1, ?2, ?3, ?4)";
    let params = params![
        member.workspace.as_str(),
        member.user.as_str(),
        member.role.as_str(),
        member.joined_at.as_millis(),
    ];
    change(conn, MEMBER, sql, params).map(drop)
}

fn list(conn: &Connection, page: &PageRequest) -> Result<Page<Workspace>> {
    let limit = cursor::page_items(page);
    let after = page.cursor.as_deref();
    let after = after.map(|cursor| cursor::decode_time(List::Workspaces, cursor));
    let (at, id) = after.transpose()?.unwrap_or((i64::MIN, String::new()));
    let params = params![at, id, to_sql_int(limit + 1)];
    let mut items = all(conn, WORKSPACE, LIST, params, workspace_from_row)?;
    let more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| more).map(|last| {
        let at = last.created_at.as_millis().to_string();
        cursor::encode(List::Workspaces, &at, last.id.as_str())
    });
    Ok(Page { items, next })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::plan;

    #[test]
    fn lists_come_from_an_index() {
        for (sql, index) in [(LIST, "workspaces_by_age"), (OF, "members_by_user")] {
            let plan = plan(sql);
            assert!(plan.contains(index), "{sql}: {plan}");
        }
    }
}
