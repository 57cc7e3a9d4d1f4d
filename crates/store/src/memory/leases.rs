//! Leases in memory: stores that share their state, each a node's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use woodfrog_types::node::{Lease, Node};
use woodfrog_types::snapshot::SnapshotPlace;
use woodfrog_types::{BuildId, NodeId, RunId, SandboxId, SnapshotId, Timestamp};

use super::{MemoryStore, State};
use crate::{Claim, LeaseStore, Result, StoreError, Taking};

/// One process of one node.
#[derive(Debug, Clone)]
pub(super) struct Member {
    node: NodeId,
    /// Told apart from others of the same node.
    process: u64,
    lease: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Leases {
    processes: u64,
    nodes: BTreeMap<NodeId, Node>,
    rows: BTreeMap<SandboxId, Row>,
    snapshots: BTreeMap<SnapshotId, NodeId>,
    runs: BTreeMap<RunId, NodeId>,
    builds: BTreeMap<BuildId, NodeId>,
}

#[derive(Debug)]
struct Row {
    holder: Option<(NodeId, u64)>,
    token: u64,
    until: Timestamp,
    wanted: Option<NodeId>,
    refused: Option<String>,
}

impl Row {
    fn show(&self, sandbox: &SandboxId) -> Lease {
        Lease {
            sandbox: sandbox.clone(),
            node: self.holder.as_ref().map(|(node, _)| node.clone()),
            token: self.token,
            over: self.until <= Timestamp::now(),
            wanted: self.wanted.clone(),
            refused: self.refused.clone(),
        }
    }

    fn give(&mut self, member: &Member) {
        let holder = Some((member.node.clone(), member.process));
        if self.holder != holder {
            self.holder = holder;
            self.token += 1;
        }
        self.until = Timestamp::now().plus(member.lease);
        self.wanted = None;
        self.refused = None;
    }
}

impl MemoryStore {
    /// The same store, as a node has it: its leases last this long.
    pub fn for_node(&self, node: NodeId, lease: Duration) -> Self {
        let mut state = self.lock();
        state.leases.processes += 1;
        Self {
            state: Arc::clone(&self.state),
            member: Some(Member {
                node,
                process: state.leases.processes,
                lease,
            }),
        }
    }

    /// Refuses a write about a sandbox that another process has the lease of.
    pub(super) fn fence(
        &self,
        state: &State,
        sandbox: &SandboxId,
        what: &'static str,
    ) -> Result<()> {
        let (Some(member), Some(row)) = (&self.member, state.leases.rows.get(sandbox)) else {
            return Ok(());
        };
        match &row.holder {
            Some((node, process)) if *node == member.node && *process == member.process => Ok(()),
            Some(_) | None => Err(StoreError::Fenced { what }),
        }
    }

    /// A new sandbox is its maker's.
    pub(super) fn lease_new(&self, state: &mut State, sandbox: &SandboxId) {
        let Some(member) = &self.member else { return };
        let mut row = Row {
            holder: None,
            token: 0,
            until: Timestamp::now(),
            wanted: None,
            refused: None,
        };
        row.give(member);
        state.leases.rows.insert(sandbox.clone(), row);
    }

    pub(super) fn wrote_snapshot(&self, state: &mut State, id: &SnapshotId) {
        if let Some(member) = &self.member {
            let here = member.node.clone();
            state.leases.snapshots.insert(id.clone(), here);
        }
    }

    pub(super) fn wrote_run(&self, state: &mut State, id: &RunId) {
        if let Some(member) = &self.member {
            state.leases.runs.insert(id.clone(), member.node.clone());
        }
    }

    pub(super) fn wrote_build(&self, state: &mut State, id: BuildId) {
        if let Some(member) = &self.member {
            state.leases.builds.insert(id, member.node.clone());
        }
    }

    /// Whether the sandbox is this node's.
    pub(super) fn has(&self, state: &State, sandbox: &SandboxId) -> bool {
        let Some(member) = &self.member else {
            return true;
        };
        let row = state.leases.rows.get(sandbox);
        row.and_then(|row| row.holder.as_ref())
            .is_some_and(|(node, _)| *node == member.node)
    }

    /// Whether another node has the sandbox.
    pub(super) fn is_elsewhere(&self, state: &State, sandbox: &SandboxId) -> bool {
        let row = state.leases.rows.get(sandbox);
        row.is_some_and(|row| row.holder.is_some()) && !self.has(state, sandbox)
    }

    /// Whether this node's build it is.
    pub(super) fn builds_it(&self, state: &State, id: BuildId) -> bool {
        match &self.member {
            None => true,
            Some(member) => state.leases.builds.get(&id) == Some(&member.node),
        }
    }
}

#[async_trait]
impl LeaseStore for MemoryStore {
    fn node(&self) -> Option<&NodeId> {
        self.member.as_ref().map(|member| &member.node)
    }

    async fn lease_begin(&self, name: &str) -> Result<()> {
        let Some(member) = &self.member else {
            return Ok(());
        };
        let mut state = self.lock();
        let node = Node {
            id: member.node.clone(),
            name: name.to_owned(),
            seen_at: Timestamp::now(),
        };
        state.leases.nodes.insert(member.node.clone(), node);
        let alone = state.leases.nodes.len() == 1;
        let known: Vec<SandboxId> = state.sandboxes.keys().cloned().collect();
        for id in known {
            if alone && !state.leases.rows.contains_key(&id) {
                self.lease_new(&mut state, &id);
            }
        }
        if alone {
            let snapshots: Vec<_> = state.snapshots.keys().cloned().collect();
            let runs: Vec<_> = state.runs.keys().cloned().collect();
            let builds: Vec<_> = state.builds.keys().copied().collect();
            let here = || member.node.clone();
            for id in snapshots {
                state.leases.snapshots.entry(id).or_insert_with(here);
            }
            for id in runs {
                state.leases.runs.entry(id).or_insert_with(here);
            }
            for id in builds {
                state.leases.builds.entry(id).or_insert_with(here);
            }
        }
        let rows = state.leases.rows.values_mut();
        for row in rows {
            if row
                .holder
                .as_ref()
                .is_some_and(|(node, _)| *node == member.node)
            {
                row.give(member);
            }
        }
        Ok(())
    }

    async fn node_fetch(&self, id: &NodeId) -> Result<Option<Node>> {
        Ok(self.lock().leases.nodes.get(id).cloned())
    }

    async fn lease_fetch(&self, sandbox: &SandboxId) -> Result<Option<Lease>> {
        let state = self.lock();
        Ok(state.leases.rows.get(sandbox).map(|row| row.show(sandbox)))
    }

    async fn lease_take(&self, sandbox: &SandboxId, claim: Claim) -> Result<Taking> {
        let mut state = self.lock();
        let there = state.sandboxes.contains_key(sandbox);
        let (Some(member), Some(row)) = (&self.member, state.leases.rows.get_mut(sandbox)) else {
            return Ok(Taking::Nothing);
        };
        if !there {
            return Ok(Taking::Nothing);
        }
        let free = match &row.holder {
            None => true,
            Some((node, _)) if *node == member.node => true,
            Some(_) => claim == Claim::Expired && row.until <= Timestamp::now(),
        };
        if free {
            row.give(member);
        }
        Ok(match free {
            true => Taking::Mine(row.show(sandbox)),
            false => Taking::Held(row.show(sandbox)),
        })
    }

    async fn lease_release(&self, sandbox: &SandboxId) -> Result<()> {
        let mut state = self.lock();
        if self.fence(&state, sandbox, "lease").is_ok()
            && let Some(row) = state.leases.rows.get_mut(sandbox)
        {
            row.holder = None;
        }
        Ok(())
    }

    async fn lease_renew(&self) -> Result<Vec<SandboxId>> {
        let Some(member) = &self.member else {
            return Ok(Vec::new());
        };
        let mut state = self.lock();
        if let Some(node) = state.leases.nodes.get_mut(&member.node) {
            node.seen_at = Timestamp::now();
        }
        let holder = Some((member.node.clone(), member.process));
        let until = Timestamp::now().plus(member.lease);
        let mut renewed = Vec::new();
        for (id, row) in &mut state.leases.rows {
            if row.holder == holder {
                row.until = until;
                renewed.push(id.clone());
            }
        }
        renewed.retain(|id| state.sandboxes.contains_key(id));
        Ok(renewed)
    }

    async fn lease_want(&self, sandbox: &SandboxId) -> Result<()> {
        let mut state = self.lock();
        if let (Some(member), Some(row)) = (&self.member, state.leases.rows.get_mut(sandbox)) {
            row.wanted = Some(member.node.clone());
            row.refused = None;
        }
        Ok(())
    }

    async fn lease_wanted(&self) -> Result<Vec<SandboxId>> {
        let state = self.lock();
        let wanted = state.leases.rows.iter().filter(|(id, row)| {
            let asked = row.wanted.is_some() && row.refused.is_none();
            asked && self.has(&state, id)
        });
        Ok(wanted.map(|(id, _)| id.clone()).collect())
    }

    async fn lease_refuse(&self, sandbox: &SandboxId, why: &str) -> Result<()> {
        let mut state = self.lock();
        if self.fence(&state, sandbox, "lease").is_ok()
            && let Some(row) = state.leases.rows.get_mut(sandbox)
        {
            row.refused = Some(why.to_owned());
        }
        Ok(())
    }

    async fn snapshots_here(&self) -> Result<Option<Vec<SnapshotId>>> {
        let Some(member) = &self.member else {
            return Ok(None);
        };
        let state = self.lock();
        let here = state.snapshots.values().filter(|snapshot| {
            let away = matches!(snapshot.place, SnapshotPlace::Archive { .. });
            !away && state.leases.snapshots.get(&snapshot.id) == Some(&member.node)
        });
        Ok(Some(here.map(|snapshot| snapshot.id.clone()).collect()))
    }

    async fn runs_here(&self) -> Result<Option<Vec<RunId>>> {
        let Some(member) = &self.member else {
            return Ok(None);
        };
        let state = self.lock();
        let runs = state.leases.runs.iter();
        let here = runs.filter(|(_, node)| **node == member.node);
        Ok(Some(here.map(|(id, _)| id.clone()).collect()))
    }
}
