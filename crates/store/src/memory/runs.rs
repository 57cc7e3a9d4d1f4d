//! Runs, the books and artifacts in memory.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use woodfrog_types::artifact::{Artifact, ArtifactFilter, Review};
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::run::{NewRunEvent, Run, RunEvent, RunFilter, RunState};
use woodfrog_types::usage::{Month, UsageEntry, UsageTotals};
use woodfrog_types::{ArtifactId, RunId, Timestamp, WorkspaceId};

use super::{MemoryStore, State, cut_page};
use crate::cursor::{self, List};
use crate::{
    Admitted, ArtifactPut, ArtifactStore, Result, RunStore, RunWrite, RunWritten, StartRate,
    StoreError, UsageStore, Whose,
};

const RUN: &str = "run";
const ARTIFACT: &str = "artifact";

/// A run with its log.
#[derive(Debug)]
pub(super) struct Kept {
    record: Run,
    events: Vec<RunEvent>,
}

/// What was used.
#[derive(Debug, Default)]
pub(super) struct Books {
    entries: BTreeMap<(WorkspaceId, String), UsageEntry>,
    totals: BTreeMap<(WorkspaceId, Month), UsageTotals>,
}

impl Books {
    /// `None` if its key is taken; else the month that it counts in.
    fn book(&mut self, entry: &UsageEntry) -> Option<Month> {
        let key = (entry.workspace.clone(), entry.key.clone());
        if self.entries.contains_key(&key) {
            return None;
        }
        let month = Month::of(entry.at);
        let totals = self.totals.entry((entry.workspace.clone(), month));
        totals.or_default().add(entry);
        self.entries.insert(key, entry.clone());
        Some(month)
    }
}

#[async_trait]
impl RunStore for MemoryStore {
    async fn run_insert(
        &self,
        run: &Run,
        events: Vec<NewRunEvent>,
        rates: Vec<StartRate>,
    ) -> Result<Admitted> {
        let mut state = self.lock();
        if run.generation != 1 {
            return Err(StoreError::Conflict { what: RUN });
        }
        if state.runs.contains_key(&run.id) {
            return Err(StoreError::Constraint { what: RUN });
        }
        if let Some(key) = &run.idempotency_key {
            let mut all = state.runs.values().map(|kept| &kept.record);
            let known = all.find(|other| {
                other.workspace == run.workspace && other.idempotency_key.as_ref() == Some(key)
            });
            if let Some(known) = known {
                return Ok(Admitted::Known(Box::new(known.clone())));
            }
        }
        for rate in rates {
            let (count, oldest) = starts(&state, run, rate.whose, rate.after);
            if count >= rate.max {
                let oldest = oldest.unwrap_or(run.created_at);
                return Ok(Admitted::RateLimited { rate, oldest });
            }
        }
        let mut kept = Kept {
            record: run.clone(),
            events: Vec::new(),
        };
        let record = &mut kept.record;
        record.heartbeat_at = run.created_at;
        record.tokens = Default::default();
        record.cost = Default::default();
        record.position = Default::default();
        record.last_event = 0;
        kept.append(events);
        state.runs.insert(run.id.clone(), kept);
        super::billing::note_run(&mut state, None, run);
        self.wrote_run(&mut state, &run.id);
        Ok(Admitted::New)
    }

    async fn run_write(&self, write: RunWrite) -> Result<RunWritten> {
        let mut state = self.lock();
        let State { runs, books, .. } = &mut *state;
        let kept = runs.get_mut(&write.run);
        let kept = kept.ok_or(StoreError::NotFound { what: RUN })?;
        let conflict = StoreError::Conflict { what: RUN };
        if kept.record.generation != write.generation || kept.record.state.is_terminal() {
            return Err(conflict);
        }
        let old = kept.record.clone();
        if let Some(record) = &write.record {
            if record.id != write.run || record.generation != write.generation + 1 {
                return Err(conflict);
            }
            let stored = &kept.record;
            kept.record = Run {
                heartbeat_at: stored.heartbeat_at,
                tokens: stored.tokens,
                cost: stored.cost,
                position: stored.position,
                last_event: stored.last_event,
                ..record.clone()
            };
        }
        let mut months = BTreeSet::new();
        for entry in &write.usage {
            let Some(month) = books.book(entry) else {
                continue;
            };
            months.insert((entry.workspace.clone(), month));
            if let woodfrog_types::usage::Quantity::Tokens { tokens, .. } = &entry.quantity {
                kept.record.tokens = kept.record.tokens.plus(*tokens);
            }
            kept.record.cost = kept.record.cost.plus(entry.cost);
        }
        if let Some(at) = write.heartbeat_at {
            kept.record.heartbeat_at = kept.record.heartbeat_at.max(at);
        }
        if let Some(position) = write.position {
            kept.record.position = position;
        }
        kept.append(write.events);
        let totals = months.into_iter();
        let written = RunWritten {
            last_event: kept.record.last_event,
            tokens: kept.record.tokens,
            cost: kept.record.cost,
            totals: totals.map(|key| (key.1, books.totals[&key])).collect(),
        };
        let new = kept.record.clone();
        super::billing::note_run(&mut state, Some(&old), &new);
        self.wrote_run(&mut state, &new.id);
        Ok(written)
    }

    async fn run_fetch(&self, id: &RunId) -> Result<Option<Run>> {
        let state = self.lock();
        Ok(state.runs.get(id).map(|kept| kept.record.clone()))
    }

    async fn run_by_trace(&self, workspace: &WorkspaceId, trace: &str) -> Result<Option<Run>> {
        let state = self.lock();
        let mut all = state.runs.values().map(|kept| &kept.record);
        let found =
            all.find(|run| run.workspace == *workspace && run.trace_id.as_deref() == Some(trace));
        Ok(found.cloned())
    }

    async fn run_list(
        &self,
        workspace: &WorkspaceId,
        filter: &RunFilter,
        page: &PageRequest,
    ) -> Result<Page<Run>> {
        let before = page.cursor.as_deref();
        let before = before.map(|cursor| cursor::decode_time(List::Runs, cursor));
        let before = before.transpose()?;
        let state = self.lock();
        let all = state.runs.values().map(|kept| &kept.record);
        let mut found: Vec<&Run> = all
            .filter(|run| run.workspace == *workspace && matches(run, filter))
            .filter(|run| before.as_ref().is_none_or(|before| sort_key(run) < *before))
            .collect();
        found.sort_by_key(|run| std::cmp::Reverse(sort_key(run)));
        let limit = cursor::page_items(page);
        Ok(cut_page(found.into_iter().cloned(), limit, |last| {
            let (at, id) = sort_key(last);
            cursor::encode(List::Runs, &at.to_string(), &id)
        }))
    }

    async fn run_unfinished(&self) -> Result<Vec<Run>> {
        let state = self.lock();
        let all = state.runs.values().map(|kept| &kept.record);
        let mut found: Vec<Run> = all
            .filter(|run| !run.state.is_terminal())
            .cloned()
            .collect();
        found.sort_by_key(sort_key);
        Ok(found)
    }

    async fn run_starts(
        &self,
        run: &Run,
        whose: Whose,
        after: Timestamp,
    ) -> Result<(u64, Option<Timestamp>)> {
        Ok(starts(&self.lock(), run, whose, after))
    }

    async fn run_ended(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<RunId>> {
        let state = self.lock();
        let all = state.runs.values().map(|kept| &kept.record);
        let mut ended: Vec<(Timestamp, RunId)> = all
            .filter(|run| run.workspace == *workspace)
            .filter_map(|run| match &run.state {
                RunState::Ended { at, .. } if *at < before => Some((*at, run.id.clone())),
                _ => None,
            })
            .collect();
        ended.sort();
        Ok(ended.into_iter().take(limit).map(|(_, id)| id).collect())
    }

    async fn run_events(
        &self,
        id: &RunId,
        after: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<RunEvent>> {
        let state = self.lock();
        let kept = state.runs.get(id).into_iter();
        let events = kept.flat_map(|kept| &kept.events);
        let (mut found, mut left) = (Vec::new(), bytes);
        for event in events.filter(|event| event.sequence > after) {
            let size = event.event.data.len();
            if found.len() == limit || (!found.is_empty() && size > left) {
                break;
            }
            left = left.saturating_sub(size);
            found.push(event.clone());
        }
        Ok(found)
    }

    async fn run_forget(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<u64> {
        let mut state = self.lock();
        let mut due: Vec<(Timestamp, RunId)> = state
            .runs
            .values()
            .map(|kept| &kept.record)
            .filter(|run| run.workspace == *workspace && run.input.is_some())
            .filter_map(|run| match &run.state {
                RunState::Ended { at, .. } if *at < before => Some((*at, run.id.clone())),
                _ => None,
            })
            .collect();
        due.sort();
        due.truncate(limit);
        for (_, id) in &due {
            if let Some(kept) = state.runs.get_mut(id) {
                kept.record.input = None;
                kept.record.result = None;
                kept.record.generation += 1;
                kept.events.clear();
            }
        }
        Ok(u64::try_from(due.len()).unwrap_or(u64::MAX))
    }

    async fn run_remove(&self, id: &RunId) -> Result<bool> {
        let mut state = self.lock();
        state.artifacts.retain(|_, artifact| artifact.run != *id);
        Ok(state.runs.remove(id).is_some())
    }
}

#[async_trait]
impl UsageStore for MemoryStore {
    async fn usage_book(
        &self,
        entries: Vec<UsageEntry>,
    ) -> Result<Vec<(WorkspaceId, Month, UsageTotals)>> {
        let books = &mut self.lock().books;
        let mut months = BTreeSet::new();
        for entry in &entries {
            if let Some(month) = books.book(entry) {
                months.insert((entry.workspace.clone(), month));
            }
        }
        let months = months.into_iter();
        Ok(months
            .map(|key| {
                let totals = books.totals[&key];
                (key.0, key.1, totals)
            })
            .collect())
    }

    async fn usage_list(
        &self,
        workspace: &WorkspaceId,
        from: Timestamp,
        until: Timestamp,
        page: &PageRequest,
    ) -> Result<Page<UsageEntry>> {
        let after = page.cursor.as_deref();
        let after = after.map(|cursor| cursor::decode_time(List::Usage, cursor));
        let after = after.transpose()?;
        let state = self.lock();
        let key = |entry: &UsageEntry| (entry.at.as_millis(), entry.key.clone());
        let mut found: Vec<&UsageEntry> = state
            .books
            .entries
            .values()
            .filter(|entry| entry.workspace == *workspace && (from..until).contains(&entry.at))
            .filter(|entry| after.as_ref().is_none_or(|after| key(entry) > *after))
            .collect();
        found.sort_by_key(|entry| key(entry));
        let limit = cursor::page_items(page);
        Ok(cut_page(found.into_iter().cloned(), limit, |last| {
            let (at, key) = key(last);
            cursor::encode(List::Usage, &at.to_string(), &key)
        }))
    }

    async fn usage_totals(&self, workspace: &WorkspaceId, month: Month) -> Result<UsageTotals> {
        let state = self.lock();
        let totals = state.books.totals.get(&(workspace.clone(), month));
        Ok(totals.copied().unwrap_or_default())
    }

    async fn books_purge(&self, workspace: &WorkspaceId, limit: usize) -> Result<u64> {
        let mut state = self.lock();
        let entries = &mut state.books.entries;
        let of = entries.keys().filter(|(of, _)| of == workspace);
        let gone: Vec<_> = of.take(limit).cloned().collect();
        for key in &gone {
            entries.remove(key);
        }
        if !gone.is_empty() {
            return Ok(u64::try_from(gone.len()).unwrap_or(u64::MAX));
        }
        state.books.totals.retain(|(of, _), _| of != workspace);
        Ok(u64::from(state.forget_money(workspace)))
    }
}

#[async_trait]
impl ArtifactStore for MemoryStore {
    async fn artifact_put(&self, artifact: &Artifact, max: u64) -> Result<ArtifactPut> {
        let mut state = self.lock();
        if !state.runs.contains_key(&artifact.run) {
            return Err(StoreError::NotFound { what: RUN });
        }
        let of_run = |other: &&Artifact| other.run == artifact.run;
        let mut all = state.artifacts.values().filter(of_run);
        if let Some(old) = all.find(|other| other.path == artifact.path).cloned() {
            let new = Artifact {
                id: old.id.clone(),
                ..artifact.clone()
            };
            state.artifacts.insert(old.id.clone(), new);
            return Ok(ArtifactPut::Replaced(Box::new(old)));
        }
        let count = state.artifacts.values().filter(of_run).count();
        if u64::try_from(count).unwrap_or(u64::MAX) >= max {
            return Ok(ArtifactPut::Full);
        }
        if state.artifacts.contains_key(&artifact.id) {
            return Err(StoreError::Constraint { what: ARTIFACT });
        }
        state
            .artifacts
            .insert(artifact.id.clone(), artifact.clone());
        Ok(ArtifactPut::New)
    }

    async fn artifact_fetch(&self, id: &ArtifactId) -> Result<Option<Artifact>> {
        Ok(self.lock().artifacts.get(id).cloned())
    }

    async fn artifact_list(
        &self,
        workspace: &WorkspaceId,
        filter: &ArtifactFilter,
        page: &PageRequest,
    ) -> Result<Page<Artifact>> {
        let before = page.cursor.as_deref();
        let before = before.map(|cursor| cursor::decode_time(List::Artifacts, cursor));
        let before = before.transpose()?;
        let state = self.lock();
        let key = |one: &Artifact| (one.created_at.as_millis(), one.id.as_str().to_owned());
        let mut found: Vec<&Artifact> = state
            .artifacts
            .values()
            .filter(|one| one.workspace == *workspace)
            .filter(|one| filter.run.as_ref().is_none_or(|run| one.run == *run))
            .filter(|one| filter.thread.as_ref().is_none_or(|of| one.thread == *of))
            .filter(|one| filter.state.is_none_or(|state| one.state() == state))
            .filter(|one| before.as_ref().is_none_or(|before| key(one) < *before))
            .collect();
        found.sort_by_key(|one| std::cmp::Reverse(key(one)));
        let limit = cursor::page_items(page);
        Ok(cut_page(found.into_iter().cloned(), limit, |last| {
            let (at, id) = key(last);
            cursor::encode(List::Artifacts, &at.to_string(), &id)
        }))
    }

    async fn artifact_aged(
        &self,
        workspace: &WorkspaceId,
        before: Timestamp,
        limit: usize,
    ) -> Result<Vec<Artifact>> {
        let state = self.lock();
        let mut found: Vec<&Artifact> = state
            .artifacts
            .values()
            .filter(|one| one.workspace == *workspace && one.created_at < before)
            .collect();
        found.sort_by_key(|one| (one.created_at, one.id.clone()));
        Ok(found.into_iter().take(limit).cloned().collect())
    }

    async fn artifact_review(&self, id: &ArtifactId, review: &Review) -> Result<Artifact> {
        let mut state = self.lock();
        let artifact = state.artifacts.get_mut(id);
        let artifact = artifact.ok_or(StoreError::NotFound { what: ARTIFACT })?;
        artifact.review = Some(review.clone());
        Ok(artifact.clone())
    }

    async fn artifact_remove(&self, id: &ArtifactId) -> Result<bool> {
        Ok(self.lock().artifacts.remove(id).is_some())
    }
}

impl Kept {
    fn append(&mut self, events: Vec<NewRunEvent>) {
        for event in events {
            self.record.last_event += 1;
            self.events.push(RunEvent {
                run: self.record.id.clone(),
                sequence: self.record.last_event,
                event,
            });
        }
    }
}

fn starts(state: &State, new: &Run, whose: Whose, after: Timestamp) -> (u64, Option<Timestamp>) {
    let counts = |run: &&Run| match whose {
        Whose::User => run.created_by == new.created_by,
        Whose::Workspace => run.workspace == new.workspace,
    };
    let all = state.runs.values().map(|kept| &kept.record);
    let times = all.filter(counts).filter(|run| run.created_at > after);
    times.fold((0, None), |(count, oldest), run| {
        let oldest = oldest.map_or(run.created_at, |oldest: Timestamp| {
            oldest.min(run.created_at)
        });
        (count + 1, Some(oldest))
    })
}

fn sort_key(run: &Run) -> (i64, String) {
    (run.created_at.as_millis(), run.id.as_str().to_owned())
}

fn matches(run: &Run, filter: &RunFilter) -> bool {
    let RunFilter {
        thread,
        created_by,
        state,
        sandbox,
        agent,
        from,
        until,
    } = filter;
    thread.as_ref().is_none_or(|one| run.thread == *one)
        && created_by.as_ref().is_none_or(|one| run.created_by == *one)
        && state.as_ref().is_none_or(|one| run.state.as_str() == one)
        && (sandbox.is_none() || run.sandbox == *sandbox)
        && (agent.is_none() || run.work.agent() == agent.as_deref())
        && from.is_none_or(|from| run.created_at >= from)
        && until.is_none_or(|until| run.created_at < until)
}

impl State {
    /// What the run has cost so far; nothing if there is no such run.
    pub(super) fn run_cost(&self, run: &RunId) -> u64 {
        self.runs
            .get(run)
            .map_or(0, |kept| kept.record.cost.total())
    }

    /// What the workspace has spent in the month.
    pub(super) fn month_cost(&self, workspace: &WorkspaceId, month: Month) -> u64 {
        let totals = self.books.totals.get(&(workspace.clone(), month));
        totals.map_or(0, |totals| totals.cost.total())
    }

    /// Every run.
    pub(super) fn run_records(&self) -> impl Iterator<Item = &Run> {
        self.runs.values().map(|kept| &kept.record)
    }

    /// The log of a run.
    pub(super) fn run_log(&self, run: &RunId) -> &[RunEvent] {
        self.runs.get(run).map_or(&[], |kept| &kept.events)
    }

    /// Every entry of the books.
    pub(super) fn entries(&self) -> impl Iterator<Item = &UsageEntry> {
        self.books.entries.values()
    }

    /// Books an entry, in the sums of its run as well.
    pub(super) fn book(&mut self, entry: &UsageEntry) {
        if self.books.book(entry).is_none() {
            return;
        }
        let run = entry.run.as_ref().and_then(|run| self.runs.get_mut(run));
        if let Some(kept) = run {
            if let woodfrog_types::usage::Quantity::Tokens { tokens, .. } = &entry.quantity {
                kept.record.tokens = kept.record.tokens.plus(*tokens);
            }
            kept.record.cost = kept.record.cost.plus(entry.cost);
        }
    }
}
