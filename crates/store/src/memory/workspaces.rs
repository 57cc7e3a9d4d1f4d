//! Workspaces and members in memory.

use async_trait::async_trait;
use woodfrog_types::WorkspaceId;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::workspace::{LimitsRecord, Member, Role, UserId, Workspace};

use super::{MemoryStore, cut_page};
use crate::cursor::{self, List};
use crate::{Result, StoreError, WorkspaceStore};

const WORKSPACE: &str = "workspace";
const MEMBER: &str = "member";
const LIMITS: &str = "limits";

#[async_trait]
impl WorkspaceStore for MemoryStore {
    async fn workspace_insert(&self, workspace: &Workspace) -> Result<()> {
        if workspace.generation != 1 {
            return Err(StoreError::Conflict { what: WORKSPACE });
        }
        let mut state = self.lock();
        if state.workspaces.contains_key(&workspace.id) {
            return Err(StoreError::Constraint { what: WORKSPACE });
        }
        let owner = Member {
            workspace: workspace.id.clone(),
            user: workspace.owner.clone(),
            role: Role::Owner,
            joined_at: workspace.created_at,
        };
        let key = (workspace.id.clone(), workspace.owner.clone());
        state.members.insert(key, owner);
        let id = workspace.id.clone();
        state.workspaces.insert(id, workspace.clone());
        Ok(())
    }

    async fn workspace_update(&self, workspace: &Workspace) -> Result<()> {
        let mut state = self.lock();
        let known = state.workspaces.get_mut(&workspace.id);
        let known = known.ok_or(StoreError::NotFound { what: WORKSPACE })?;
        if known.generation + 1 != workspace.generation {
            return Err(StoreError::Conflict { what: WORKSPACE });
        }
        *known = Workspace {
            owner: known.owner.clone(),
            created_at: known.created_at,
            ..workspace.clone()
        };
        Ok(())
    }

    async fn workspace_fetch(&self, id: &WorkspaceId) -> Result<Option<Workspace>> {
        Ok(self.lock().workspaces.get(id).cloned())
    }

    async fn workspace_list(&self, page: &PageRequest) -> Result<Page<Workspace>> {
        let after = page.cursor.as_deref();
        let after = after.map(|cursor| cursor::decode_time(List::Workspaces, cursor));
        let after = after.transpose()?;
        let key = |one: &Workspace| (one.created_at.as_millis(), one.id.as_str().to_owned());
        let state = self.lock();
        let mut found: Vec<&Workspace> = state.workspaces.values().collect();
        found.retain(|one| after.as_ref().is_none_or(|after| key(one) > *after));
        found.sort_by_key(|one| key(one));
        Ok(cut_page(
            found.into_iter().cloned(),
            cursor::page_items(page),
            |last| {
                let (at, id) = key(last);
                cursor::encode(List::Workspaces, &at.to_string(), &id)
            },
        ))
    }

    async fn workspace_of(&self, user: &UserId) -> Result<Vec<(Workspace, Role)>> {
        let state = self.lock();
        let mut found: Vec<(Workspace, Role)> = state
            .members
            .values()
            .filter(|member| member.user == *user)
            .filter_map(|member| {
                let workspace = state.workspaces.get(&member.workspace)?;
                Some((workspace.clone(), member.role))
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        Ok(found)
    }

    async fn workspace_removing(&self) -> Result<Vec<Workspace>> {
        let state = self.lock();
        let all = state.workspaces.values();
        let mut found: Vec<Workspace> = all
            .filter(|one| one.removing_since.is_some())
            .cloned()
            .collect();
        found.sort_by(|a, b| (a.removing_since, &a.id).cmp(&(b.removing_since, &b.id)));
        Ok(found)
    }

    async fn workspace_purge(&self, id: &WorkspaceId) -> Result<bool> {
        let mut state = self.lock();
        state.members.retain(|(workspace, _), _| workspace != id);
        state.keys.retain(|_, key| key.workspace != *id);
        state.limits.remove(id);
        state.sleep_defaults.remove(id);
        Ok(state.workspaces.remove(id).is_some())
    }

    async fn member_insert(&self, member: &Member) -> Result<()> {
        let mut state = self.lock();
        if !state.workspaces.contains_key(&member.workspace) {
            return Err(StoreError::NotFound { what: WORKSPACE });
        }
        let key = (member.workspace.clone(), member.user.clone());
        if state.members.contains_key(&key) {
            return Err(StoreError::Constraint { what: MEMBER });
        }
        state.members.insert(key, member.clone());
        Ok(())
    }

    async fn member_update(
        &self,
        workspace: &WorkspaceId,
        user: &UserId,
        role: Role,
    ) -> Result<()> {
        let mut state = self.lock();
        let known = state.members.get_mut(&(workspace.clone(), user.clone()));
        known.ok_or(StoreError::NotFound { what: MEMBER })?.role = role;
        Ok(())
    }

    async fn member_remove(&self, workspace: &WorkspaceId, user: &UserId) -> Result<bool> {
        let key = (workspace.clone(), user.clone());
        Ok(self.lock().members.remove(&key).is_some())
    }

    async fn member_fetch(&self, workspace: &WorkspaceId, user: &UserId) -> Result<Option<Member>> {
        let key = (workspace.clone(), user.clone());
        Ok(self.lock().members.get(&key).cloned())
    }

    async fn member_list(&self, workspace: &WorkspaceId) -> Result<Vec<Member>> {
        let state = self.lock();
        let all = state.members.values();
        let mut found: Vec<Member> = all
            .filter(|member| member.workspace == *workspace)
            .cloned()
            .collect();
        found.sort_by(|a, b| (a.joined_at, &a.user).cmp(&(b.joined_at, &b.user)));
        Ok(found)
    }

    async fn limits_fetch(&self, workspace: &WorkspaceId) -> Result<Option<LimitsRecord>> {
        Ok(self.lock().limits.get(workspace).cloned())
    }

    async fn limits_put(&self, limits: &LimitsRecord) -> Result<()> {
        let mut state = self.lock();
        let before = state.limits.get(&limits.workspace);
        if before.map_or(0, |before| before.generation) + 1 != limits.generation {
            return Err(StoreError::Conflict { what: LIMITS });
        }
        let id = limits.workspace.clone();
        state.limits.insert(id, limits.clone());
        Ok(())
    }
}
