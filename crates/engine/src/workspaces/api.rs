//! Making, naming and listing workspaces, and the people in them.

use woodfrog_core::access::{self, Action, MemberChange};
use woodfrog_types::audit::{AuditOutcome, NewAuditEntry};
use woodfrog_types::key::{KeyReach, Principal, Scope};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::workspace::{Member, Role, UserId, Workspace};
use woodfrog_types::{Code, Fault, Timestamp, WorkspaceId};

use crate::engine::Engine;
use crate::fault;
use crate::keys::not_found;
use crate::sandbox::check_page;

/// Workspaces that one person may own.
pub const OWNED_MAX: usize = 1_000;
/// People in one workspace.
pub const MEMBERS_MAX: usize = 10_000;

impl Engine {
    /// Makes a workspace. Its owner is who asks; the operator may name somebody else.
    pub async fn workspace_create(
        &self,
        principal: &Principal,
        name: &str,
        owner: Option<UserId>,
    ) -> Result<Workspace, Fault> {
        self.inner.accepting()?;
        access::check(principal.role, Action::WorkspaceCreate)?;
        access::workspace_name(name)?;
        let operator = principal.scope == Scope::Admin;
        let itself = principal.key.as_ref().map(UserId::of_key);
        let owner = match owner {
            Some(owner) if operator || owner == principal.user => owner,
            Some(_) => {
                let text = "Unauthorized: only the operator makes workspaces for others";
                return Err(Fault::new(Code::PermissionDenied, text));
            }
            None if operator => UserId::operator(),
            None => principal.user.clone(),
        };
        if !operator && itself.as_ref() == Some(&owner) {
            let text = "Unauthorized: a key that acts for nobody cannot own a workspace";
            return Err(Fault::new(Code::PermissionDenied, text));
        }
        let of = self.inner.store.workspace_of(&owner).await;
        let of = of.map_err(fault::store)?;
        let owned = of.iter().filter(|(_, role)| *role == Role::Owner).count();
        if owned >= OWNED_MAX {
            let text = format!("{owner} owns {owned} workspaces, the most there may be");
            return Err(Fault::new(Code::QuotaExceeded, text));
        }
        let workspace = Workspace {
            id: WorkspaceId::generate(),
            name: name.to_owned(),
            owner,
            generation: 1,
            created_at: Timestamp::now(),
            removing_since: None,
        };
        let inserted = self.inner.store.workspace_insert(&workspace).await;
        inserted.map_err(fault::store)?;
        self.inner.grants.forget();
        // The first entry of its own log: whoever made it did so from somewhere else.
        self.inner
            .audit
            .durable(NewAuditEntry {
                workspace: workspace.id.clone(),
                at: workspace.created_at,
                actor: principal.user.clone(),
                key: principal.key.clone(),
                action: Action::WorkspaceCreate.as_str().to_owned(),
                target: workspace.id.to_string(),
                outcome: AuditOutcome::Done,
                detail: format!("owner {}", workspace.owner),
                face: "engine".to_owned(),
                request_id: String::new(),
            })
            .await?;
        Ok(workspace)
    }

    /// Where the caller is in, and as what; the operator is in all of them. Those that are being
    /// removed are shown to the operator only.
    pub async fn workspace_list(
        &self,
        principal: &Principal,
        page: PageRequest,
    ) -> Result<Page<(Workspace, Role)>, Fault> {
        check_page(&page)?;
        if principal.scope == Scope::Admin {
            let all = self.inner.store.workspace_list(&page).await;
            let all = all.map_err(fault::store)?;
            return Ok(all.map(|one| (one, Role::Owner)));
        }
        let mut items = self.memberships(&principal.user).await?;
        if let Some(id) = &principal.key {
            let key = self.inner.store.key_fetch(id).await;
            let key = key.map_err(fault::store)?.ok_or_else(not_found)?;
            // A key shows where it can be used, and as what.
            if key.reach == KeyReach::Bound {
                items.retain(|(one, _)| one.id == principal.workspace);
                let own = self.workspace_record(&principal.workspace).await?;
                if let Some(own) = own.filter(|_| items.is_empty()) {
                    items.push((own, principal.role));
                }
            }
            for (_, role) in &mut items {
                *role = access::through_key(*role, key.role);
            }
        }
        Ok(Page { items, next: None })
    }

    /// The caller's workspace.
    pub async fn workspace_fetch(&self, principal: &Principal) -> Result<Workspace, Fault> {
        access::check(principal.role, Action::WorkspaceRead)?;
        let found = self.workspace_record(&principal.workspace).await?;
        found.ok_or_else(not_found)
    }

    /// Gives the caller's workspace another name.
    pub async fn workspace_rename(
        &self,
        principal: &Principal,
        name: &str,
    ) -> Result<Workspace, Fault> {
        access::check(principal.role, Action::WorkspaceRename)?;
        access::workspace_name(name)?;
        let before = self.workspace_fetch(principal).await?;
        let next = Workspace {
            name: name.to_owned(),
            generation: before.generation + 1,
            ..before
        };
        let updated = self.inner.store.workspace_update(&next).await;
        updated.map_err(fault::store)?;
        self.inner.grants.forget();
        Ok(next)
    }

    /// Who is in the caller's workspace.
    pub async fn member_list(&self, principal: &Principal) -> Result<Vec<Member>, Fault> {
        access::check(principal.role, Action::MemberRead)?;
        let all = self.inner.store.member_list(&principal.workspace).await;
        all.map_err(fault::store)
    }

    /// Takes somebody in.
    pub async fn member_add(
        &self,
        principal: &Principal,
        user: &UserId,
        role: Role,
    ) -> Result<Member, Fault> {
        let there = self.role_of(principal, user).await?;
        access::change_member(principal.role, MemberChange::Add { there, role })?;
        let all = self.inner.store.member_list(&principal.workspace).await;
        if all.map_err(fault::store)?.len() >= MEMBERS_MAX {
            let text = format!("a workspace has at most {MEMBERS_MAX} members");
            return Err(Fault::new(Code::QuotaExceeded, text));
        }
        let member = Member {
            workspace: principal.workspace.clone(),
            user: user.clone(),
            role,
            joined_at: Timestamp::now(),
        };
        let inserted = self.inner.store.member_insert(&member).await;
        inserted.map_err(|error| match error {
            woodfrog_store::StoreError::Constraint { .. } => Fault::new(
                Code::AlreadyExists,
                "User is already a member of this workspace",
            ),
            woodfrog_store::StoreError::NotFound { .. } => not_found(),
            other => fault::store(other),
        })?;
        self.inner.grants.forget();
        Ok(member)
    }

    /// Gives a member another role.
    pub async fn member_role(
        &self,
        principal: &Principal,
        user: &UserId,
        role: Role,
    ) -> Result<Member, Fault> {
        access::check(principal.role, Action::MemberRole)?;
        let before = self.member(principal, user).await?;
        let change = MemberChange::Role {
            from: before.role,
            to: role,
        };
        access::change_member(principal.role, change)?;
        let store = &self.inner.store;
        let updated = store.member_update(&principal.workspace, user, role).await;
        updated.map_err(fault::store)?;
        self.inner.grants.forget();
        Ok(Member { role, ..before })
    }

    /// Puts a member out: their keys and open streams end within seconds.
    pub async fn member_remove(&self, principal: &Principal, user: &UserId) -> Result<(), Fault> {
        access::check(principal.role, Action::MemberRemove)?;
        let role = self.member(principal, user).await?.role;
        access::change_member(principal.role, MemberChange::Remove { role })?;
        let store = &self.inner.store;
        let removed = store.member_remove(&principal.workspace, user).await;
        self.inner.grants.forget();
        match removed.map_err(fault::store)? {
            true => Ok(()),
            false => Err(no_member()),
        }
    }

    async fn member(&self, principal: &Principal, user: &UserId) -> Result<Member, Fault> {
        let store = &self.inner.store;
        let found = store.member_fetch(&principal.workspace, user).await;
        found.map_err(fault::store)?.ok_or_else(no_member)
    }

    pub(crate) async fn role_of(
        &self,
        principal: &Principal,
        user: &UserId,
    ) -> Result<Option<Role>, Fault> {
        let store = &self.inner.store;
        let found = store.member_fetch(&principal.workspace, user).await;
        Ok(found.map_err(fault::store)?.map(|member| member.role))
    }

    pub(crate) async fn workspace_record(
        &self,
        id: &WorkspaceId,
    ) -> Result<Option<Workspace>, Fault> {
        let found = self.inner.store.workspace_fetch(id).await;
        let found = found.map_err(fault::store)?;
        Ok(found.filter(|one| one.removing_since.is_none()))
    }
}

fn no_member() -> Fault {
    Fault::new(Code::NotFound, "User is not a member of this workspace")
}
