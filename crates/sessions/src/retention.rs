//! Removes what is not to be kept: sessions that ended long ago, and old entries of logs.
//!
//! It walks over all sessions, a bounded number at a time, and begins again at the end. What it
//! does can be repeated, so a walk that is cut short costs nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use woodfrog_core::retention::{self as decide, Held};
use woodfrog_store::{SessionStore, SettingStore, Store};
use woodfrog_types::retention::Retention;
use woodfrog_types::session::{LogEnd, Session, Stream};
use woodfrog_types::{Fault, SessionId, Timestamp, WorkspaceId};

use crate::hub;
use crate::reader::fault;

mod stored;

/// Between two parts of the walk.
const INTERVAL: Duration = Duration::from_secs(60);
/// Sessions of one part.
const PART: usize = 500;
/// Turns of one session that are looked at for those that are not over.
const TURNS: usize = 100_000;

/// What one part of the walk did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    pub seen: usize,
    pub removed: usize,
    /// Logs of which entries were dropped.
    pub trimmed: usize,
}

/// How long sessions are kept, and who sees to it. A cheap clone.
#[derive(Clone)]
pub struct Retainer {
    sessions: Arc<dyn SessionStore>,
    settings: Arc<dyn SettingStore>,
    /// For workspaces that do not say.
    server: Retention,
}

impl Retainer {
    /// `server`: for workspaces that do not say.
    pub fn new(store: &Arc<dyn Store>, server: Retention) -> Self {
        let (sessions, settings) = (Arc::clone(store), Arc::clone(store));
        Self {
            sessions,
            settings,
            server,
        }
    }

    /// What holds for workspaces that do not say.
    pub fn server(&self) -> Retention {
        self.server
    }

    /// What a workspace said; `None` if it did not.
    pub async fn own(&self, workspace: &WorkspaceId) -> Result<Option<Retention>, Fault> {
        let value = self.settings.setting_get(&name(workspace)).await;
        match value.map_err(Fault::internal)? {
            Some(bytes) => stored::read(&bytes).map_err(Fault::internal),
            None => Ok(None),
        }
    }

    /// What holds for a workspace.
    pub async fn of(&self, workspace: &WorkspaceId) -> Result<Retention, Fault> {
        Ok(self.own(workspace).await?.unwrap_or(self.server))
    }

    /// Sets what holds for a workspace; `None`: as the server has it.
    pub async fn set(&self, workspace: &WorkspaceId, own: Option<Retention>) -> Result<(), Fault> {
        if let Some(own) = &own {
            decide::validate(own)?;
        }
        let value = stored::write(own.as_ref());
        let put = self.settings.setting_put(&name(workspace), &value).await;
        put.map_err(Fault::internal)
    }

    /// Sees to it until it is told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut after = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            match self.sweep(&mut after, PART, Timestamp::now()).await {
                Ok(Swept {
                    removed: 0,
                    trimmed: 0,
                    ..
                }) => {}
                Ok(swept) => tracing::info!(?swept, "sessions that are not to be kept"),
                Err(fault) => tracing::warn!(%fault, "sessions cannot be looked through"),
            }
        }
    }

    /// One part of the walk: at most `limit` sessions after `after`, which is moved on, and is
    /// `None` again at the end.
    pub async fn sweep(
        &self,
        after: &mut Option<SessionId>,
        limit: usize,
        now: Timestamp,
    ) -> Result<Swept, Fault> {
        let ids = self.sessions.session_scan(after.as_ref(), limit).await;
        let ids = ids.map_err(Fault::internal)?;
        let mut swept = Swept::default();
        let mut of = HashMap::new();
        for id in &ids {
            // What goes wrong with one session concerns no other.
            match self.tend(id, &mut of, now, &mut swept).await {
                Ok(()) => swept.seen += 1,
                Err(fault) => tracing::warn!(session = %id, %fault, "not tended"),
            }
        }
        *after = ids.last().filter(|_| ids.len() == limit).cloned();
        Ok(swept)
    }

    async fn tend(
        &self,
        id: &SessionId,
        of: &mut HashMap<WorkspaceId, Retention>,
        now: Timestamp,
        swept: &mut Swept,
    ) -> Result<(), Fault> {
        let session = self.sessions.session_fetch(id).await;
        let Some(session) = session.map_err(|error| fault(error, id))? else {
            return Ok(());
        };
        let retention = match of.get(&session.workspace) {
            Some(known) => *known,
            None => {
                let found = self.of(&session.workspace).await?;
                of.insert(session.workspace.clone(), found);
                found
            }
        };
        if decide::may_go(&session.state, &retention, now) {
            let removed = self.sessions.session_remove(id).await;
            removed.map_err(|error| fault(error, id))?;
            swept.removed += 1;
            return Ok(());
        }
        if retention.age.is_none() && retention.entries.is_none() {
            return Ok(());
        }
        if self.trim(&session, &retention, now).await? {
            swept.trimmed += 1;
        }
        Ok(())
    }

    /// Drops old entries; says whether it did.
    async fn trim(
        &self,
        session: &Session,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<bool, Fault> {
        let id = &session.id;
        let (end, _) = self.at(id, Stream::Log, u64::MAX >> 1).await?;
        let young = match decide::oldest(retention, now) {
            Some(oldest) => self.first_since(id, Stream::Log, &end, oldest).await?,
            None => end.log + 1,
        };
        let mut held = Held {
            first: end.log_first,
            last: end.log,
            young,
            open: None,
        };
        if decide::first_kept(&held, retention).is_none() {
            return Ok(false);
        }
        held.open = self.open(id).await?;
        let Some(first) = decide::first_kept(&held, retention) else {
            return Ok(false);
        };
        // The second order follows the first: nothing in it is older than what is kept there.
        let (_, kept) = self.at(id, Stream::Log, first - 1).await?;
        let since = kept.map_or(now, |(_, at)| at);
        let universal = self.first_since(id, Stream::Universal, &end, since).await?;
        for (stream, before) in [(Stream::Universal, universal), (Stream::Log, first)] {
            let trimmed = self.sessions.session_trim(id, stream, before).await;
            trimmed.map_err(|error| fault(error, id))?;
        }
        Ok(true)
    }

    /// The first place of a turn that is not over.
    async fn open(&self, id: &SessionId) -> Result<Option<u64>, Fault> {
        let turns = self.sessions.session_turns(id, 0, TURNS).await;
        let turns = turns.map_err(|error| fault(error, id))?;
        let open = turns.iter().filter(|turn| turn.last.is_none());
        Ok(open.map(|turn| turn.first).min())
    }

    /// Where the log stands, and the entry after a place: its own, and when it was written.
    async fn at(
        &self,
        id: &SessionId,
        stream: Stream,
        after: u64,
    ) -> Result<(LogEnd, Option<(u64, Timestamp)>), Fault> {
        let slice = self.sessions.session_read(id, stream, after, 1, 1).await;
        let slice = slice.map_err(|error| fault(error, id))?;
        let entry = slice.events.first();
        let entry = entry.map(|entry| (entry.sequence, entry.event.at));
        Ok((slice.end, entry))
    }

    /// The first place that was written at this time or later; one after the last if none was.
    /// Halves what is left with each read.
    async fn first_since(
        &self,
        id: &SessionId,
        stream: Stream,
        end: &LogEnd,
        since: Timestamp,
    ) -> Result<u64, Fault> {
        let (mut low, mut high) = (hub::first(end, stream), hub::last(end, stream) + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.at(id, stream, middle - 1).await?.1 {
                Some((place, at)) if at < since => low = place + 1,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }
}

fn name(workspace: &WorkspaceId) -> String {
    format!("sessions.retention.{workspace}")
}
