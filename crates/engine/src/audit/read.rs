//! Reading the audit log: lists, the check of the chain, reports, retention.

use std::collections::BTreeMap;
use std::time::Duration;

use woodfrog_core::access::{self, Action};
use woodfrog_core::audit::{Flaw, Verifier};
use woodfrog_types::audit::{AuditEntry, AuditFilter, NewAuditEntry};
use woodfrog_types::key::Principal;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::{Fault, Timestamp};

use crate::engine::Engine;
use crate::fault;
use crate::inner::Inner;
use crate::sandbox::check_page;

/// Entries that are read in one go.
pub const AUDIT_PART_MAX: usize = 500;
/// Rows of one report; what is beyond them is one row together.
const REPORT_ROWS_MAX: usize = 10_000;
/// Entries that retention removes in one go.
const TRIM_BATCH: usize = 1_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the check of a log found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditCheck {
    /// Entries that were read and are right.
    pub entries: u64,
    /// Places before this one were removed by retention.
    pub first: u64,
    /// The last entry that is right.
    pub last: u64,
    /// SHA-256 of the last entry, hexadecimal: who keeps it can tell later that nothing before it
    /// was written anew.
    pub head: String,
    /// What is wrong, if something is.
    pub flaw: Option<Flaw>,
}

/// One line of a report.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReportRow {
    pub action: String,
    pub actor: String,
    pub outcome: &'static str,
    pub count: u64,
}

/// What was done in a period.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// Entries of the period: the sum of the rows.
    pub total: u64,
    /// By action, actor and outcome.
    pub rows: Vec<ReportRow>,
}

impl Engine {
    /// Writes an entry that is on disk when this returns: for who may do what, and for how much.
    pub async fn audit_durable(&self, entry: NewAuditEntry) -> Result<(), Fault> {
        self.inner.audit.durable(entry).await
    }

    /// Hands an entry over; it is written within moments, with others.
    pub async fn audit_later(&self, entry: NewAuditEntry) {
        self.inner.audit.later(entry).await;
    }

    /// A page of the caller's workspace's log, newest first.
    pub async fn audit_list(
        &self,
        principal: &Principal,
        filter: &AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, Fault> {
        access::check(principal.role, Action::AuditRead)?;
        check_page(&page)?;
        self.inner.audit.flush().await;
        let store = &self.inner.store;
        let found = store.audit_list(&principal.workspace, filter, &page).await;
        found.map_err(fault::store)
    }

    /// Entries after a place that match, oldest first, and the place to go on from; `None` at the
    /// end. For exports.
    pub async fn audit_part(
        &self,
        principal: &Principal,
        filter: &AuditFilter,
        after: u64,
    ) -> Result<(Vec<AuditEntry>, Option<u64>), Fault> {
        access::check(principal.role, Action::AuditRead)?;
        if after == 0 {
            self.inner.audit.flush().await;
        }
        let part = self.part(principal, after).await?;
        let full = part.len() == AUDIT_PART_MAX;
        let next = part.last().filter(|_| full).map(|last| last.sequence);
        let wanted = part.into_iter().filter(|one| filter.matches(&one.entry));
        Ok((wanted.collect(), next))
    }

    /// Reads the whole log and looks whether it is as it was written.
    pub async fn audit_verify(&self, principal: &Principal) -> Result<AuditCheck, Fault> {
        access::check(principal.role, Action::AuditRead)?;
        self.inner.audit.flush().await;
        let ends = self.inner.store.audit_ends(&principal.workspace).await;
        let ends = ends.map_err(fault::store)?;
        let mut verifier = Verifier::new(ends);
        let mut flaw = None;
        while verifier.place() < ends.last {
            let mut part = self.part(principal, verifier.place()).await?;
            // What came since is not in these ends.
            part.retain(|one| one.sequence <= ends.last);
            let read = verifier.read(&part);
            if let Err(found) = read {
                flaw = Some(found);
                break;
            }
            if part.is_empty() {
                break;
            }
        }
        let flaw = flaw.or_else(|| verifier.finish().err());
        Ok(AuditCheck {
            entries: verifier.place() - ends.trimmed,
            first: ends.trimmed + 1,
            last: verifier.place(),
            head: hex::encode(ends.last_hash),
            flaw,
        })
    }

    /// Counts what was done in a period.
    pub async fn audit_report(
        &self,
        principal: &Principal,
        from: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<AuditReport, Fault> {
        let filter = AuditFilter {
            from,
            until,
            ..AuditFilter::default()
        };
        let mut counts: BTreeMap<(String, String, &'static str), u64> = BTreeMap::new();
        let (mut total, mut after) = (0, Some(0));
        while let Some(place) = after {
            let (part, next) = self.audit_part(principal, &filter, place).await?;
            for AuditEntry { entry, .. } in part {
                let mut row = (
                    entry.action,
                    entry.actor.to_string(),
                    entry.outcome.as_str(),
                );
                if counts.len() >= REPORT_ROWS_MAX && !counts.contains_key(&row) {
                    row = ("(other)".to_owned(), "(other)".to_owned(), row.2);
                }
                *counts.entry(row).or_insert(0) += 1;
                total += 1;
            }
            after = next;
        }
        let row = |((action, actor, outcome), count)| ReportRow {
            action,
            actor,
            outcome,
            count,
        };
        Ok(AuditReport {
            from,
            until,
            total,
            rows: counts.into_iter().map(row).collect(),
        })
    }

    async fn part(&self, principal: &Principal, after: u64) -> Result<Vec<AuditEntry>, Fault> {
        let store = &self.inner.store;
        let part = store.audit_read(&principal.workspace, after, AUDIT_PART_MAX);
        part.await.map_err(fault::store)
    }
}

/// Removes the entries that are older than their workspaces keep them.
pub(crate) async fn trim(inner: &Inner, now: Timestamp) -> Result<u64, woodfrog_store::StoreError> {
    let mut dropped = 0;
    for workspace in inner.store.audit_workspaces().await? {
        let limits = inner.store.limits_fetch(&workspace).await?;
        let limits = limits.map_or_else(|| inner.options.limits.clone(), |one| one.limits);
        let Some(days) = limits.audit_retention_days else {
            continue;
        };
        let kept = DAY.saturating_mul(days);
        let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        let before = Timestamp::from_millis(now.as_millis().saturating_sub(kept));
        loop {
            let gone = inner
                .store
                .audit_trim(&workspace, before, TRIM_BATCH)
                .await?;
            dropped += gone;
            if gone < TRIM_BATCH as u64 {
                break;
            }
        }
    }
    Ok(dropped)
}
