//! What callers with a principal may do with sandboxes. Another workspace's id answers exactly as
//! an unknown one.

use woodfrog_core::{egress, token, validate};
use woodfrog_types::event::SandboxEvent;
use woodfrog_types::key::{Principal, Scope};
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::metric::MetricSample;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::{Sandbox, SandboxFilter};
use woodfrog_types::workspace::Role;
use woodfrog_types::{Fault, SandboxId, Timestamp, WorkspaceId};

use crate::engine::Engine;
use crate::fault;
use crate::request::DeadlineChange;
use crate::sandbox::live::Command;
use crate::sandbox::owner;
use crate::view::SandboxView;

/// Events that one call returns at most.
pub const EVENTS_MAX: usize = 1000;

/// Whether a principal may know of something that this workspace owns.
pub(crate) fn may_see(principal: &Principal, owner: &WorkspaceId) -> bool {
    principal.scope == Scope::Admin || principal.workspace == *owner
}

impl Engine {
    /// One sandbox. `SandboxNotFound` if it is gone or going.
    pub async fn sandbox_fetch(
        &self,
        principal: &Principal,
        id: &SandboxId,
    ) -> Result<SandboxView, Fault> {
        let record = self.record(principal, id).await?;
        Ok(self.view_for(principal, &record))
    }

    /// The workspace's sandboxes that match, by start time.
    pub async fn sandbox_list(
        &self,
        principal: &Principal,
        filter: SandboxFilter,
        page: PageRequest,
    ) -> Result<Page<SandboxView>, Fault> {
        check_page(&page)?;
        let listed = self
            .inner
            .store
            .sandbox_list(&principal.workspace, &filter, &page)
            .await
            .map_err(fault::store)?;
        Ok(listed.map(|sandbox| self.view_for(principal, &sandbox)))
    }

    /// How many sandboxes the workspace has.
    pub async fn sandbox_count(&self, principal: &Principal) -> Result<u64, Fault> {
        let count = self.inner.store.sandbox_count(&principal.workspace).await;
        count.map_err(fault::store)
    }

    /// How many of them run as E2B's clients see it: the one that dozes by itself does, too.
    pub async fn sandbox_count_running(&self, principal: &Principal) -> Result<u64, Fault> {
        let store = &self.inner.store;
        let count = store.sandbox_count_running(&principal.workspace).await;
        count.map_err(fault::store)
    }

    /// Ends a sandbox; all of it is gone when this returns.
    pub async fn sandbox_delete(&self, principal: &Principal, id: &SandboxId) -> Result<(), Fault> {
        self.inner.accepting()?;
        self.ask(principal, id, |reply| Command::Delete { reply })
            .await
    }

    /// Moves a sandbox's deadline.
    pub async fn sandbox_deadline(
        &self,
        principal: &Principal,
        id: &SandboxId,
        change: DeadlineChange,
    ) -> Result<SandboxView, Fault> {
        self.inner.accepting()?;
        match change {
            DeadlineChange::Set(after) | DeadlineChange::Extend(after) => {
                validate::timeout_at_most(after, self.inner.options.timeout_max)?;
            }
            DeadlineChange::Never => {}
        }
        let record = self
            .ask(principal, id, |reply| Command::Deadline { change, reply })
            .await?;
        Ok(self.view(&record))
    }

    /// Replaces a sandbox's network rules; in force for new connections when this returns.
    pub async fn sandbox_network(
        &self,
        principal: &Principal,
        id: &SandboxId,
        network: NetworkSpec,
    ) -> Result<(), Fault> {
        self.inner.accepting()?;
        egress::validate(&network)?;
        let record = self.record(principal, id).await?;
        if !network.allow_public_traffic && !record.secure {
            return Err(Fault::invalid(
                "network.allow_public_traffic",
                "You cannot close the ports of a sandbox without secure access",
            ));
        }
        self.check_secrets(&principal.workspace, &network).await?;
        self.check_proxy(&network).await?;
        self.ask(principal, id, |reply| Command::Network {
            network: Box::new(network.clone()),
            reply,
        })
        .await
    }

    /// Samples of a sandbox between two times (both included), oldest first; none of one that
    /// sleeps on disk.
    pub async fn sandbox_metrics(
        &self,
        principal: &Principal,
        id: &SandboxId,
        from: Option<Timestamp>,
        to: Option<Timestamp>,
    ) -> Result<Vec<MetricSample>, Fault> {
        self.record(principal, id).await?;
        let Some(live) = self.inner.registry.get(id) else {
            return Ok(Vec::new());
        };
        let wanted = |sample: &&MetricSample| {
            from.is_none_or(|from| sample.at >= from) && to.is_none_or(|to| sample.at <= to)
        };
        Ok(live.with_samples(|samples| samples.iter().filter(wanted).copied().collect()))
    }

    /// The latest sample of each of these sandboxes; those that are unknown, not visible or not
    /// sampled yet are left out.
    pub async fn sandbox_metrics_latest(
        &self,
        principal: &Principal,
        ids: &[SandboxId],
    ) -> Result<Vec<(SandboxId, MetricSample)>, Fault> {
        if ids.len() > PAGE_ITEMS_MAX {
            return Err(Fault::invalid(
                "sandbox_ids",
                format!("at most {PAGE_ITEMS_MAX} sandboxes per call"),
            ));
        }
        let latest = |id: &SandboxId| {
            let live = self.inner.registry.get(id)?;
            if live.is_ending() || !may_see(principal, &live.record().workspace) {
                return None;
            }
            let sample = live.with_samples(|samples| samples.back().copied())?;
            Some((id.clone(), sample))
        };
        Ok(ids.iter().filter_map(latest).collect())
    }

    /// A sandbox's events after `after`, oldest first, at most `limit` (and [`EVENTS_MAX`]).
    pub async fn sandbox_events(
        &self,
        principal: &Principal,
        id: &SandboxId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<SandboxEvent>, Fault> {
        self.record(principal, id).await?;
        let limit = limit.min(EVENTS_MAX);
        let events = self.inner.store.event_list(id, after, limit).await;
        events.map_err(fault::store)
    }

    /// As [`Self::view`], for somebody in particular: who only reads gets no tokens, with which one
    /// could write.
    pub(crate) fn view_for(&self, principal: &Principal, sandbox: &Sandbox) -> SandboxView {
        let view = self.view(sandbox);
        if principal.role > Role::Viewer {
            return view;
        }
        SandboxView {
            access_token: String::new(),
            traffic_token: None,
            ..view
        }
    }

    /// What opens a sandbox over a WebSocket. Derived from the id and the server's secret: valid
    /// for the sandbox's whole life, and nowhere inside it.
    pub fn socket_token(&self, id: &SandboxId) -> String {
        token::derive(&self.inner.secret, token::Purpose::Socket, id)
    }

    /// Whether this is the sandbox's [`Engine::socket_token`]; takes the same time for every text
    /// of its length, and looks at nothing of the sandbox.
    pub fn socket_token_opens(&self, id: &SandboxId, presented: &str) -> bool {
        token::same(presented, &self.socket_token(id))
    }

    /// Remembers across a restart of the server how far a client's output was delivered.
    pub async fn socket_note(&self, id: &SandboxId, note: &str) -> Result<(), Fault> {
        let name = note_name(id);
        let put = self.inner.store.setting_put(&name, note.as_bytes());
        put.await.map_err(fault::store)
    }

    /// What [`Engine::socket_note`] remembered; it is forgotten then.
    pub async fn socket_note_take(&self, id: &SandboxId) -> Result<Option<String>, Fault> {
        let (store, name) = (&self.inner.store, note_name(id));
        let noted = store.setting_get(&name).await;
        let noted = noted.map_err(fault::store)?.unwrap_or_default();
        if noted.is_empty() {
            return Ok(None);
        }
        let put = store.setting_put(&name, b"").await;
        put.map_err(fault::store)?;
        Ok(String::from_utf8(noted).ok())
    }

    pub(crate) fn view(&self, sandbox: &Sandbox) -> SandboxView {
        let secret = &self.inner.secret;
        SandboxView {
            access_token: token::derive(secret, token::Purpose::Guest, &sandbox.id),
            traffic_token: owner::traffic_token(&self.inner, sandbox),
            sandbox: sandbox.clone(),
        }
    }
}

fn note_name(id: &SandboxId) -> String {
    format!("socket.{id}")
}

/// A page that a store may be asked for.
pub(crate) fn check_page(page: &PageRequest) -> Result<(), Fault> {
    if (1..=PAGE_ITEMS_MAX).contains(&page.limit) {
        return Ok(());
    }
    Err(Fault::invalid(
        "limit",
        format!("must be 1 to {PAGE_ITEMS_MAX}"),
    ))
}
