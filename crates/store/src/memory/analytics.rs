//! Sums in memory: a loop over all records.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use serde_json::Value;
use woodfrog_types::analytics::{
    GroupBy, RunFact, RunQuery, RunReport, RunTally, ToolSum, UsageSums, day,
};
use woodfrog_types::run::{Outcome, Run, RunEventKind, RunState, Work};
use woodfrog_types::usage::{Quantity, UsageEntry, UsageTotals};
use woodfrog_types::{Timestamp, WorkspaceId};

use super::{MemoryStore, State};
use crate::{AnalyticsStore, Result};

impl State {
    /// The model that was asked for, or the first one that was used.
    fn model_of<'a>(&'a self, run: &'a Run) -> Option<&'a str> {
        if let Work::Prompt {
            model: Some(model), ..
        } = &run.work
        {
            return Some(model);
        }
        let of_run = |entry: &&UsageEntry| entry.run.as_ref() == Some(&run.id);
        let model = |entry: &'a UsageEntry| match &entry.quantity {
            Quantity::Tokens { model, .. } => Some((entry.at, &entry.key, model.as_str())),
            Quantity::Compute { .. } => None,
        };
        let used = self.entries().filter(of_run).filter_map(model);
        used.min().map(|(_, _, model)| model)
    }

    fn fact<'a>(&'a self, run: &'a Run) -> RunFact<'a> {
        let mut fact = RunFact {
            created_at: run.created_at,
            thread: &run.thread,
            agent: run.work.agent(),
            model: self.model_of(run),
            user: run.created_by.as_str(),
            state: run.state.as_str(),
            ended_at: None,
            duration_ms: None,
            error: None,
            tokens: run.tokens,
            cost: run.cost,
        };
        if let RunState::Ended { since, at, outcome } = &run.state {
            fact.ended_at = Some(*at);
            let took = since.map(|since| at.since(since).as_millis());
            fact.duration_ms = took.map(|took| u64::try_from(took).unwrap_or(u64::MAX));
            if let Outcome::Failed(error) = outcome {
                fact.error = Some((&error.code, &error.message));
            }
        }
        fact
    }

    fn facts<'a>(
        &'a self,
        workspace: &'a WorkspaceId,
        query: &'a RunQuery,
    ) -> impl Iterator<Item = (&'a Run, RunFact<'a>)> {
        let is = |wanted: &Option<String>, got: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| got == Some(wanted))
        };
        self.run_records()
            .filter(move |run| run.workspace == *workspace)
            .filter(move |run| (query.from..query.until).contains(&run.created_at))
            .map(|run| (run, self.fact(run)))
            .filter(move |(_, fact)| {
                is(&query.thread, Some(fact.thread))
                    && is(&query.agent, fact.agent)
                    && is(&query.model, fact.model)
                    && is(&query.user, Some(fact.user))
            })
    }
}

#[async_trait]
impl AnalyticsStore for MemoryStore {
    async fn run_report(&self, workspace: &WorkspaceId, query: &RunQuery) -> Result<RunReport> {
        let state = self.lock();
        let mut tally = RunTally::new(query);
        for (_, fact) in state.facts(workspace, query) {
            tally.add(&fact);
        }
        Ok(tally.report())
    }

    async fn tool_report(&self, workspace: &WorkspaceId, query: &RunQuery) -> Result<Vec<ToolSum>> {
        let state = self.lock();
        let mut sums: BTreeMap<String, ToolSum> = BTreeMap::new();
        for (run, _) in state.facts(workspace, query) {
            let mut called = BTreeMap::new();
            let mut seen = BTreeSet::new();
            for event in state.run_log(&run.id) {
                let Ok(data) = serde_json::from_str::<Value>(&event.event.data) else {
                    continue;
                };
                let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
                match event.event.kind {
                    RunEventKind::ToolUse if data["name"].is_string() => {
                        let tool = text("name");
                        called.insert(text("id"), tool.clone());
                        let new = seen.insert(tool.clone());
                        let sum = tool_sum(&mut sums, &tool);
                        sum.calls += 1;
                        sum.runs += u64::from(new);
                    }
                    RunEventKind::ToolResult if data["is_error"] == Value::Bool(true) => {
                        if let Some(tool) = called.get(&text("tool_use_id")) {
                            tool_sum(&mut sums, tool).errors += 1;
                        }
                    }
                    _ => {}
                }
            }
        }
        let mut sums: Vec<ToolSum> = sums.into_values().collect();
        sums.sort_by_key(|sum| std::cmp::Reverse(sum.calls));
        Ok(sums)
    }

    async fn usage_report(
        &self,
        workspace: &WorkspaceId,
        from: Timestamp,
        until: Timestamp,
        by: GroupBy,
    ) -> Result<UsageSums> {
        let state = self.lock();
        let mut sums: BTreeMap<Option<String>, UsageTotals> = BTreeMap::new();
        let all = state.entries();
        for entry in all.filter(|entry| entry.workspace == *workspace) {
            if (from..until).contains(&entry.at) {
                sums.entry(name(entry, by)).or_default().add(entry);
            }
        }
        Ok(sums.into_iter().collect())
    }

    async fn run_states(&self) -> Result<Vec<(String, u64)>> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for run in self.lock().run_records() {
            *counts.entry(run.state.as_str().to_owned()).or_default() += 1;
        }
        Ok(counts.into_iter().collect())
    }
}

fn tool_sum<'a>(sums: &'a mut BTreeMap<String, ToolSum>, tool: &str) -> &'a mut ToolSum {
    sums.entry(tool.to_owned()).or_insert_with(|| ToolSum {
        tool: tool.to_owned(),
        runs: 0,
        calls: 0,
        errors: 0,
    })
}

fn name(entry: &UsageEntry, by: GroupBy) -> Option<String> {
    match by {
        GroupBy::Day => Some(day(entry.at)),
        GroupBy::Model => match &entry.quantity {
            Quantity::Tokens { model, .. } => Some(model.clone()),
            Quantity::Compute { .. } => None,
        },
        GroupBy::User => Some(entry.user.to_string()),
        GroupBy::Thread => entry.thread.clone(),
        GroupBy::Agent => entry.agent.clone(),
    }
}
