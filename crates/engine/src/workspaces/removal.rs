//! Removing workspaces: a job that goes on after a restart where it was.
//!
//! The mark in the record is the intent. From then on nothing in the workspace can be reached; the
//! job removes what there is, a pass at a time, and the record last. A pass that meets an error
//! leaves the rest to the next one.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use woodfrog_core::access::{self, Action};
use woodfrog_store::Store;
use woodfrog_types::audit::{AuditOutcome, NewAuditEntry};
use woodfrog_types::key::{Principal, Scope};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::SandboxFilter;
use woodfrog_types::sandbox_session::SandboxSessionFilter;
use woodfrog_types::session::SessionFilter;
use woodfrog_types::snapshot::SnapshotFilter;
use woodfrog_types::workspace::{UserId, Workspace};
use woodfrog_types::{Code, Fault, Timestamp, WorkspaceId};

use crate::engine::Engine;
use crate::fault;
use crate::inner::Inner;
use crate::keys::operator;

/// Between two passes over what could not be removed.
const RETRY: Duration = Duration::from_secs(2);
/// Things that are removed between two looks at the list.
const BATCH: usize = 100;

/// Something of a workspace that others than the engine keep.
#[async_trait]
pub trait WorkspaceContent: Send + Sync {
    /// What it is, for people: `runs`.
    fn name(&self) -> &'static str;
    /// Removes some of it and returns how much; 0 when nothing is left. Called again until then.
    async fn remove(&self, workspace: &WorkspaceId) -> Result<usize, Fault>;
}

/// How far the removal of a workspace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    pub workspace: Workspace,
    /// What was removed by this server so far, by kind.
    pub removed: BTreeMap<String, u64>,
    /// Why the last pass did not get to its end.
    pub error: Option<String>,
}

type Done = (BTreeMap<String, u64>, Option<String>);

/// The removals under way.
#[derive(Default)]
pub(crate) struct Removals {
    /// Weak: they have the engine, and it must not have them.
    contents: RwLock<Vec<Weak<dyn WorkspaceContent>>>,
    progress: Mutex<BTreeMap<WorkspaceId, Done>>,
    /// For the data plane, which knows no principal.
    marked: RwLock<HashSet<WorkspaceId>>,
    more: Notify,
}

impl Removals {
    /// Whether nothing of the workspace may be reached any more.
    pub(crate) fn is_marked(&self, workspace: &WorkspaceId) -> bool {
        let marked = self.marked.read().unwrap_or_else(PoisonError::into_inner);
        marked.contains(workspace)
    }

    /// Whether so many keep something of workspaces.
    fn is_complete(&self, contents: usize) -> bool {
        let known = self.contents.read();
        known.unwrap_or_else(PoisonError::into_inner).len() >= contents
    }

    fn mark(&self, workspace: &WorkspaceId) {
        let mut marked = self.marked.write().unwrap_or_else(PoisonError::into_inner);
        marked.insert(workspace.clone());
    }

    fn count(&self, workspace: &WorkspaceId, what: &str) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let (removed, _) = progress.entry(workspace.clone()).or_default();
        *removed.entry(what.to_owned()).or_insert(0) += 1;
    }

    fn note(&self, workspace: &WorkspaceId, error: Option<String>) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.entry(workspace.clone()).or_default().1 = error;
    }
}

impl Engine {
    /// From now on what this keeps is removed with its workspace. The caller holds it as long as
    /// the engine is used: without it no removal gets to its end.
    pub fn on_workspace_removal(&self, content: &Arc<dyn WorkspaceContent>) {
        let contents = &self.inner.removals.contents;
        contents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::downgrade(content));
        self.inner.removals.more.notify_one();
    }

    /// Begins to remove the caller's workspace. From when this returns on, nothing in it can be
    /// reached and its keys are refused; what it had goes bit by bit.
    pub async fn workspace_remove(&self, principal: &Principal) -> Result<Workspace, Fault> {
        self.inner.accepting()?;
        access::check(principal.role, Action::WorkspaceRemove)?;
        if principal.workspace == WorkspaceId::default_workspace() {
            let text = "the default workspace cannot be removed";
            return Err(Fault::new(Code::Conflict, text));
        }
        let before = self.workspace_fetch(principal).await?;
        let next = Workspace {
            generation: before.generation + 1,
            removing_since: Some(Timestamp::now()),
            ..before
        };
        let updated = self.inner.store.workspace_update(&next).await;
        updated.map_err(fault::store)?;
        self.inner.removals.mark(&next.id);
        self.inner.grants.forget();
        self.inner.removals.more.notify_one();
        Ok(next)
    }

    /// Workspaces of the caller that are being removed; the operator sees all.
    pub async fn workspace_removals(&self, principal: &Principal) -> Result<Vec<Removal>, Fault> {
        let removing = self.inner.store.workspace_removing().await;
        let removing = removing.map_err(fault::store)?;
        let mine = |one: &Workspace| principal.scope == Scope::Admin || one.owner == principal.user;
        let progress = &self.inner.removals.progress;
        let progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        let removal = |workspace: Workspace| {
            let (removed, error) = progress.get(&workspace.id).cloned().unwrap_or_default();
            Removal {
                workspace,
                removed,
                error,
            }
        };
        Ok(removing.into_iter().filter(mine).map(removal).collect())
    }
}

/// What is being removed is out of reach before the first request is taken.
pub(crate) async fn mark(inner: &Inner) -> Result<(), Fault> {
    let removing = inner.store.workspace_removing().await;
    for workspace in removing.map_err(fault::store)? {
        inner.removals.mark(&workspace.id);
    }
    Ok(())
}

/// Removes what is marked, for as long as the engine runs.
pub(crate) async fn watch(engine: Engine) {
    let inner = Arc::clone(&engine.inner);
    loop {
        let more = inner.removals.more.notified();
        // At the start not all who keep something have said so yet.
        let left =
            !inner.removals.is_complete(inner.options.workspace_contents) || pass(&engine).await;
        let pause = async {
            match left {
                true => tokio::time::sleep(RETRY).await,
                // Another server may have taken one on and died.
                false => tokio::time::sleep(RETRY * 30).await,
            }
        };
        tokio::select! {
            () = inner.stopping.cancelled() => return,
            () = more => {}
            () = pause => {}
        }
    }
}

/// One pass over all of them; says whether something is left.
async fn pass(engine: &Engine) -> bool {
    let inner = &engine.inner;
    let removing = match inner.store.workspace_removing().await {
        Ok(removing) => removing,
        Err(error) => {
            tracing::warn!(%error, "cannot look for workspaces to remove");
            return true;
        }
    };
    let mut left = false;
    for workspace in removing {
        inner.removals.mark(&workspace.id);
        let ended = tokio::select! {
            () = inner.stopping.cancelled() => return true,
            ended = remove(engine, &workspace) => ended,
        };
        if let Err(fault) = ended {
            left = true;
            let error = &fault as &dyn std::error::Error;
            tracing::warn!(workspace = %workspace.id, error, "is not removed yet; trying again");
            inner.removals.note(&workspace.id, Some(fault.message));
        }
    }
    left
}

/// Removes everything of a workspace, then itself.
async fn remove(engine: &Engine, workspace: &Workspace) -> Result<(), Fault> {
    let id = &workspace.id;
    // A request that was let in before the mark may still have made something: nothing may be left
    // in a whole pass.
    while remove_some(engine, id).await? > 0 {}
    let inner = &engine.inner;
    inner.removals.note(id, None);
    let entry = NewAuditEntry {
        workspace: id.clone(),
        at: Timestamp::now(),
        actor: UserId::operator(),
        key: None,
        action: "workspace.removed".to_owned(),
        target: id.to_string(),
        outcome: AuditOutcome::Done,
        detail: String::new(),
        face: "engine".to_owned(),
        request_id: String::new(),
    };
    inner.audit.durable(entry).await?;
    inner
        .store
        .workspace_purge(id)
        .await
        .map_err(fault::store)?;
    inner.grants.forget();
    let progress = &inner.removals.progress;
    progress
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .remove(id);
    tracing::info!(workspace = %id, "removed");
    Ok(())
}

/// One pass over everything that a workspace has; returns how much it removed.
async fn remove_some(engine: &Engine, id: &WorkspaceId) -> Result<usize, Fault> {
    let inner = &engine.inner;
    let (store, me) = (&inner.store, operator(id.clone()));
    let mut total = 0;
    let contents = inner.removals.contents.read();
    let contents = contents.unwrap_or_else(PoisonError::into_inner).clone();
    for content in contents {
        let content = content.upgrade().ok_or_else(fault::stopping)?;
        loop {
            let removed = content.remove(id).await?;
            for _ in 0..removed {
                inner.removals.count(id, content.name());
            }
            total += removed;
            if removed == 0 {
                break;
            }
        }
    }
    macro_rules! each {
        ($what:literal, $list:expr, $one:ident => $remove:expr) => {
            loop {
                let items: Vec<_> = $list.await?;
                if items.is_empty() {
                    break;
                }
                for $one in items {
                    gone($remove.await)?;
                    inner.removals.count(id, $what);
                    total += 1;
                }
            }
        };
    }
    each!("sandboxes", sandboxes(&**store, id), one => engine.sandbox_delete(&me, &one));
    each!("sessions", sessions(&**store, id), one => async {
        store.session_remove(&one).await.map(drop).map_err(fault::store)
    });
    each!("sandbox sessions", sandbox_sessions(&**store, id), one => async {
        store.sandbox_session_remove(&one).await.map(drop).map_err(fault::store)
    });
    each!("snapshots", snapshots(&**store, id), one => engine.snapshot_delete(&me, one.as_str()));
    each!("persisted sessions", persisted(&**store, id), one => engine.persist_remove(&me, &one));
    each!("secrets", secrets(&**store, id), one => async {
        store.secret_remove(&one).await.map(drop).map_err(fault::store)
    });
    each!("volumes", volumes(&**store, id), one => engine.volume_delete(&me, &one));
    each!("templates", templates(&**store, id), one => engine.template_delete(&me, &one));
    Ok(total)
}

/// What is gone already is removed.
fn gone(result: Result<(), Fault>) -> Result<(), Fault> {
    match result {
        Err(fault) if fault.code.http_status() == 404 => Ok(()),
        other => other,
    }
}

fn first() -> PageRequest {
    PageRequest {
        limit: BATCH,
        cursor: None,
    }
}

fn items<T, U>(
    page: woodfrog_store::Result<Page<T>>,
    id: impl FnMut(T) -> U,
) -> Result<Vec<U>, Fault> {
    Ok(page.map_err(fault::store)?.map(id).items)
}

async fn sandboxes(
    store: &dyn Store,
    id: &WorkspaceId,
) -> Result<Vec<woodfrog_types::SandboxId>, Fault> {
    let filter = SandboxFilter::default();
    items(store.sandbox_list(id, &filter, &first()).await, |one| {
        one.id
    })
}

async fn sessions(
    store: &dyn Store,
    id: &WorkspaceId,
) -> Result<Vec<woodfrog_types::SessionId>, Fault> {
    let filter = SessionFilter::default();
    items(store.session_list(id, &filter, &first()).await, |one| {
        one.id
    })
}

async fn sandbox_sessions(
    store: &dyn Store,
    id: &WorkspaceId,
) -> Result<Vec<woodfrog_types::SandboxSessionId>, Fault> {
    let filter = SandboxSessionFilter::default();
    items(
        store.sandbox_session_list(id, &filter, &first()).await,
        |one| one.id,
    )
}

async fn snapshots(
    store: &dyn Store,
    id: &WorkspaceId,
) -> Result<Vec<woodfrog_types::SnapshotId>, Fault> {
    let filter = SnapshotFilter::default();
    items(store.snapshot_list(id, &filter, &first()).await, |one| {
        one.id
    })
}

async fn persisted(store: &dyn Store, id: &WorkspaceId) -> Result<Vec<String>, Fault> {
    items(store.persist_session_list(id, &first()).await, |one| one.id)
}

async fn secrets(
    store: &dyn Store,
    id: &WorkspaceId,
) -> Result<Vec<woodfrog_types::SecretId>, Fault> {
    items(store.secret_list(id, &first()).await, |one| one.id)
}

async fn volumes(
    store: &dyn Store,
    id: &WorkspaceId,
) -> Result<Vec<woodfrog_types::VolumeId>, Fault> {
    let all = store.volume_list(Some(id)).await.map_err(fault::store)?;
    Ok(all.into_iter().map(|one| one.id).collect())
}

/// Names of the workspace's own templates; the server's are in the list too.
async fn templates(store: &dyn Store, id: &WorkspaceId) -> Result<Vec<String>, Fault> {
    let mut page = first();
    loop {
        let part = store.template_list(id, &page).await.map_err(fault::store)?;
        let own = part.items.into_iter().filter(|one| one.workspace.is_some());
        let own: Vec<String> = own.map(|one| one.id.to_string()).collect();
        if !own.is_empty() || part.next.is_none() {
            return Ok(own);
        }
        page.cursor = part.next;
    }
}
