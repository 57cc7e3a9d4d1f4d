//! The audit log: one task writes it, in groups, each workspace's entries chained.

mod read;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use woodfrog_core::audit;
use woodfrog_store::{Store, StoreError};
use woodfrog_types::audit::{AuditEnds, AuditEntry, AuditOutcome, NewAuditEntry};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{Code, Fault, Timestamp, WorkspaceId};

pub(crate) use read::trim;
pub use read::{AUDIT_PART_MAX, AuditCheck, AuditReport, ReportRow};

/// Entries that may wait; whoever has one more waits for room.
const QUEUE: usize = 4096;
/// Entries that are written together.
const GROUP_MAX: usize = 512;
/// How long a call waits for room, and for its entry to be on disk.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Between two attempts at a store that is out of reach.
const RETRY: Duration = Duration::from_millis(500);
/// Workspaces whose log's end is remembered.
const ENDS_MAX: usize = 10_000;
/// Times that entries are chained anew because another server was first.
const CONFLICTS_MAX: u32 = 100;

enum Job {
    Write(NewAuditEntry, Option<oneshot::Sender<()>>),
    /// Answered once everything before it is written.
    Flush(oneshot::Sender<()>),
}

/// The way to the log.
pub(crate) struct Audit {
    queue: mpsc::Sender<Job>,
    /// Taken by the writer when it starts.
    jobs: Mutex<Option<mpsc::Receiver<Job>>>,
    /// Entries that found no room in time, by workspace: the log says so when it can.
    lost: Mutex<HashMap<WorkspaceId, u64>>,
    lost_ever: AtomicU64,
}

impl Default for Audit {
    fn default() -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        Self {
            queue,
            jobs: Mutex::new(Some(jobs)),
            lost: Mutex::default(),
            lost_ever: AtomicU64::new(0),
        }
    }
}

impl Audit {
    /// Writes an entry; it is on disk when this returns. `Unavailable` if it is not in time: what
    /// was done is done, and the entry is written when it can be.
    pub(crate) async fn durable(&self, entry: NewAuditEntry) -> Result<(), Fault> {
        let (reply, written) = oneshot::channel();
        let late = || {
            let text = "what was done could not be written to the audit log in time";
            Fault::new(Code::Unavailable, text)
        };
        let send = async {
            let sent = self.queue.send(Job::Write(entry, Some(reply))).await;
            sent.map_err(|_| late())?;
            written.await.map_err(|_| late())
        };
        tokio::time::timeout(WAIT_MAX, send)
            .await
            .map_err(|_| late())?
    }

    /// Hands an entry over to be written with others; waits for room. What finds none in time is
    /// counted, and the count is in the log.
    pub(crate) async fn later(&self, entry: NewAuditEntry) {
        let workspace = entry.workspace.clone();
        let sent = self.queue.send_timeout(Job::Write(entry, None), WAIT_MAX);
        if sent.await.is_err() {
            let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
            *lost.entry(workspace).or_insert(0) += 1;
            self.lost_ever.fetch_add(1, Ordering::Relaxed);
            tracing::error!("the audit log takes no entries; one more is only counted");
        }
    }

    /// Resolves once everything that was handed over is written, or the time is up.
    pub(crate) async fn flush(&self) {
        let (reply, done) = oneshot::channel();
        let flush = async {
            if self.queue.send(Job::Flush(reply)).await.is_ok() {
                let _ = done.await;
            }
        };
        if tokio::time::timeout(WAIT_MAX, flush).await.is_err() {
            tracing::error!("the audit log was not written to its end");
        }
    }

    fn take_lost(&self) -> Vec<NewAuditEntry> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = lost.drain().map(|(workspace, count)| NewAuditEntry {
            workspace,
            at: Timestamp::now(),
            actor: UserId::operator(),
            key: None,
            action: "audit.lost".to_owned(),
            target: format!("{count} entries"),
            outcome: AuditOutcome::Failed,
            detail: "the log took no entries".to_owned(),
            face: "engine".to_owned(),
            request_id: String::new(),
        });
        entries.collect()
    }
}

/// Writes what is handed over, until the engine is gone. It outlives the tasks that write to it.
pub(crate) async fn write(audit: Arc<Audit>, store: Arc<dyn Store>) {
    let jobs = audit
        .jobs
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let Some(mut jobs) = jobs else { return };
    let lost = Arc::downgrade(&audit);
    // The queue closes with the engine, and this ends.
    drop(audit);
    let mut writer = Writer {
        store,
        ends: HashMap::new(),
    };
    let mut group = Vec::with_capacity(GROUP_MAX);
    loop {
        group.clear();
        if jobs.recv_many(&mut group, GROUP_MAX).await == 0 {
            return;
        }
        let mut entries: Vec<NewAuditEntry> = Vec::with_capacity(group.len());
        if let Some(audit) = lost.upgrade() {
            entries.extend(audit.take_lost());
        }
        let mut replies = Vec::new();
        for job in group.drain(..) {
            match job {
                Job::Write(entry, reply) => {
                    entries.push(entry);
                    replies.extend(reply);
                }
                Job::Flush(reply) => replies.push(reply),
            }
        }
        writer.write(entries).await;
        for reply in replies {
            // Whoever asked may have gone.
            let _gone = reply.send(());
        }
    }
}

struct Writer {
    store: Arc<dyn Store>,
    /// Where logs end, as far as this server knows.
    ends: HashMap<WorkspaceId, AuditEnds>,
}

impl Writer {
    /// Writes a group, and does not give up while the store is out of reach.
    async fn write(&mut self, entries: Vec<NewAuditEntry>) {
        let mut by_workspace: HashMap<WorkspaceId, Vec<NewAuditEntry>> = HashMap::new();
        for entry in entries {
            let of = by_workspace.entry(entry.workspace.clone());
            of.or_default().push(entry);
        }
        for (workspace, entries) in by_workspace {
            self.write_log(&workspace, entries).await;
        }
    }

    async fn write_log(&mut self, workspace: &WorkspaceId, entries: Vec<NewAuditEntry>) {
        let mut conflicts = 0;
        loop {
            match self.attempt(workspace, &entries).await {
                Ok(()) => return,
                Err(StoreError::Conflict { .. }) if conflicts < CONFLICTS_MAX => {
                    // Another server was first: its entries are before ours.
                    conflicts += 1;
                    self.ends.remove(workspace);
                }
                Err(error) => {
                    tracing::error!(%error, "the audit log cannot be written; trying again");
                    self.ends.remove(workspace);
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn attempt(
        &mut self,
        workspace: &WorkspaceId,
        entries: &[NewAuditEntry],
    ) -> Result<(), StoreError> {
        let mut ends = match self.ends.get(workspace) {
            Some(ends) => *ends,
            None => self.store.audit_ends(workspace).await?,
        };
        let chained: Vec<AuditEntry> = audit::chain(&mut ends, entries.to_vec());
        self.store.audit_append(&chained).await?;
        if self.ends.len() >= ENDS_MAX {
            self.ends.clear();
        }
        self.ends.insert(workspace.clone(), ends);
        Ok(())
    }
}
