//! Sandboxes' time on its way into the books.
//!
//! A look reads what the log of a sandbox has that its meter has not seen, cuts it into spans and
//! books them together with the meter's new place, in one transaction. A crash between two looks
//! loses nothing: the log is there, and the next look begins where the meter stands.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use woodfrog_core::meter::{self, Phase, Size, Span, Use};
use woodfrog_core::price;
use woodfrog_store::Store;
use woodfrog_types::event::SandboxEvent;
use woodfrog_types::page::PageRequest;
use woodfrog_types::run::{Run, RunFilter, RunState};
use woodfrog_types::usage::{Meter, Rung, UsageEntry};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{Fault, SandboxId, Timestamp, WorkspaceId};

use crate::fault;
use crate::prices::Prices;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Sandboxes in one step of a look.
const BATCH: usize = 500;
/// Entries of a log in one step.
const EVENTS: usize = 500;
/// Runs of one sandbox that a span is split among; older ones have ended before it.
const RUNS: usize = 100;
/// Steps that one sandbox takes in one look.
const STEPS: usize = 100;
const MIB: u64 = 1 << 20;

/// The meters of all sandboxes. A cheap clone.
#[derive(Clone)]
pub struct Meters {
    store: Arc<dyn Store>,
    prices: Prices,
}

impl Meters {
    pub fn new(store: Arc<dyn Store>, prices: Prices) -> Self {
        Self { store, prices }
    }

    /// Looks again and again until `stop`.
    pub(crate) async fn watch(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.look(Timestamp::now()).await {
                tracing::warn!(%error, "the time of sandboxes cannot be booked");
            }
        }
    }

    /// Books what is over at `now`: transitions that were logged, slices, and the time up to the
    /// ends of runs.
    pub async fn look(&self, now: Timestamp) -> Result<(), Fault> {
        for sandbox in self.store.meter_behind(BATCH).await.map_err(fault::store)? {
            self.follow(&sandbox).await?;
        }
        let mut after = None;
        loop {
            let meters = self.store.meter_on(after.as_ref(), BATCH).await;
            let meters = meters.map_err(fault::store)?;
            let Some(last) = meters.last() else {
                return Ok(());
            };
            after = Some(last.sandbox.clone());
            for meter in meters {
                self.tick(meter, now).await?;
            }
        }
    }

    /// What a sandbox's sleep has saved so far, in micro-dollars: what it would have cost running,
    /// less what it cost. Nothing if it was never metered.
    pub async fn saved(&self, sandbox: &SandboxId, now: Timestamp) -> Result<u64, Fault> {
        let meter = self
            .store
            .meter_fetch(sandbox)
            .await
            .map_err(fault::store)?;
        let Some(meter) = meter else {
            return Ok(0);
        };
        let since = match meter.on {
            Some((rung, from)) if from < now => {
                let to = now;
                self.spared(&meter, Span { rung, from, to })
            }
            _ => 0,
        };
        Ok(meter.saved.saturating_add(since))
    }

    /// Goes through what the log has that the meter has not seen.
    async fn follow(&self, sandbox: &SandboxId) -> Result<(), Fault> {
        let stored = self
            .store
            .meter_fetch(sandbox)
            .await
            .map_err(fault::store)?;
        let mut seen = stored.as_ref().map_or(0, |meter| meter.seq);
        let mut meter = stored;
        for _ in 0..STEPS {
            let events = self.store.event_list(sandbox, seen, EVENTS).await;
            let events = events.map_err(fault::store)?;
            let Some(last) = events.last() else {
                return Ok(());
            };
            seen = last.seq;
            let mut known = match meter.take() {
                Some(known) => known,
                None => self.begin(sandbox, &events).await?,
            };
            let mut spans = Vec::new();
            for event in &events {
                let (phase, ended) = meter::follow(phase(&known), &event.kind, event.at);
                known.on = on(phase);
                spans.extend(ended);
            }
            known.seq = seen;
            self.book(&mut known, &spans).await?;
            meter = Some(known);
        }
        Ok(())
    }

    /// Books slices that are over, and the time up to the last run that ended.
    async fn tick(&self, mut meter: Meter, now: Timestamp) -> Result<(), Fault> {
        let (phase, mut spans) = meter::tick(phase(&meter), now);
        meter.on = on(phase);
        if let Some((Rung::Running, since)) = meter.on {
            let runs = self.runs(&meter.workspace, &meter.sandbox, since).await?;
            let ends = runs.iter().filter_map(|run| ended(&run.state));
            if let Some(end) = ends.filter(|end| since < *end && *end <= now).max() {
                let (phase, more) = meter::settle(Rung::Running, since, end);
                meter.on = on(phase);
                spans.extend(more);
            }
        }
        if spans.is_empty() {
            return Ok(());
        }
        self.book(&mut meter, &spans).await
    }

    /// A new meter: whose the sandbox is and how large, by its log, or by its record if the log is
    /// an older one.
    async fn begin(&self, sandbox: &SandboxId, events: &[SandboxEvent]) -> Result<Meter, Fault> {
        let mut created = events
            .iter()
            .filter(|event| event.kind == "sandbox.created");
        let logged = created.find_map(|event| {
            let number = |name: &str| event.fields.get(name)?.parse::<u64>().ok();
            let workspace = event.fields.get("workspace")?.parse().ok()?;
            let (cpus, memory) = (number("cpu_count")?, number("memory_bytes")?);
            Some((workspace, cpus, memory, number("disk_bytes")?))
        });
        let record = self.store.sandbox_fetch(sandbox).await;
        let recorded = record.map_err(fault::store)?.map(|record| {
            let resources = record.resources;
            let cpus = u64::from(resources.cpu_count);
            let (memory, disk) = (resources.memory_bytes, resources.disk_bytes);
            (record.workspace, cpus, memory, disk)
        });
        // Gone, and of before logs said it: there is nobody to charge and nothing to charge by.
        let unknown = || (WorkspaceId::default_workspace(), 0, 0, 0);
        let (workspace, cpus, memory, disk) = logged.or(recorded).unwrap_or_else(unknown);
        Ok(Meter {
            sandbox: sandbox.clone(),
            workspace,
            seq: 0,
            on: None,
            cpu_millis: cpus.saturating_mul(1_000),
            memory_mib: memory.div_ceil(MIB),
            disk_mib: disk.div_ceil(MIB),
            saved: 0,
        })
    }

    async fn book(&self, meter: &mut Meter, spans: &[Span]) -> Result<(), Fault> {
        let mut entries = Vec::new();
        if let Some(first) = spans.first() {
            let runs = self
                .runs(&meter.workspace, &meter.sandbox, first.from)
                .await?;
            let uses: Vec<Use> = runs.iter().map(used).collect();
            for span in spans {
                meter.saved = meter.saved.saturating_add(self.spared(meter, *span));
                for (part, run) in meter::attribute(*span, &uses) {
                    let run = run.and_then(|id| runs.iter().find(|run| run.id == id));
                    entries.push(self.entry(meter, part, run));
                }
            }
        }
        let stored = self.store.meter_put(meter, entries).await;
        stored.map_err(fault::store)
    }

    fn entry(&self, meter: &Meter, span: Span, run: Option<&Run>) -> UsageEntry {
        let quantity = meter::quantity(span, size(meter));
        let (cost, price_version) = self.prices.cost(&quantity);
        UsageEntry {
            key: meter::key(&meter.sandbox, span),
            workspace: meter.workspace.clone(),
            user: run.map_or_else(UserId::operator, |run| run.created_by.clone()),
            run: run.map(|run| run.id.clone()),
            thread: run.map(|run| run.thread.clone()),
            agent: run.and_then(|run| run.work.agent().map(str::to_owned)),
            sandbox: Some(meter.sandbox.clone()),
            // In the month that it was used in: a span never crosses the end of one.
            at: span.from,
            quantity,
            cost,
            price_version,
        }
    }

    /// What a span of sleep saved.
    fn spared(&self, meter: &Meter, span: Span) -> u64 {
        if span.rung == Rung::Running {
            return 0;
        }
        let awake = Span {
            rung: Rung::Running,
            ..span
        };
        let size = size(meter);
        let (awake, asleep) = (meter::quantity(awake, size), meter::quantity(span, size));
        price::saved(&self.prices.table(), &awake, &asleep)
    }

    /// The runs of a sandbox that may overlap the time after `since`, the newest first.
    async fn runs(
        &self,
        workspace: &WorkspaceId,
        sandbox: &SandboxId,
        since: Timestamp,
    ) -> Result<Vec<Run>, Fault> {
        let filter = RunFilter {
            sandbox: Some(sandbox.clone()),
            ..RunFilter::default()
        };
        let page = PageRequest {
            limit: RUNS,
            cursor: None,
        };
        let listed = self.store.run_list(workspace, &filter, &page).await;
        let mut runs = listed.map_err(fault::store)?.items;
        runs.retain(|run| ended(&run.state).is_none_or(|end| end > since));
        Ok(runs)
    }
}

/// From when it was asked for: what its sandbox takes to start is a part of it.
fn used(run: &Run) -> Use {
    Use {
        run: run.id.clone(),
        from: run.created_at,
        to: ended(&run.state),
    }
}

fn ended(state: &RunState) -> Option<Timestamp> {
    match state {
        RunState::Ended { at, .. } => Some(*at),
        RunState::Booting(_) | RunState::Running { .. } => None,
    }
}

fn size(meter: &Meter) -> Size {
    Size {
        cpu_millis: meter.cpu_millis,
        memory_mib: meter.memory_mib,
        disk_mib: meter.disk_mib,
    }
}

/// What is gone and what never was are the same to a meter that is on no rung.
fn phase(meter: &Meter) -> Phase {
    match meter.on {
        Some((rung, since)) => Phase::On { rung, since },
        None => Phase::Before,
    }
}

fn on(phase: Phase) -> Option<(Rung, Timestamp)> {
    match phase {
        Phase::On { rung, since } => Some((rung, since)),
        Phase::Before | Phase::Gone => None,
    }
}
