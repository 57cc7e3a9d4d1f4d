//! Promises about sums: every store says what a loop over all runs says.

use std::collections::BTreeMap;
use std::sync::Arc;

use woodfrog_types::analytics::{GroupBy, RunFact, RunQuery, RunTally};
use woodfrog_types::run::{
    Boot, ErrorCategory, NewRunEvent, Outcome, Run, RunError, RunEventKind, RunState, Work,
};
use woodfrog_types::usage::{Cost, Quantity, Tokens, UsageEntry, UsageTotals};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{Timestamp, WorkspaceId};

use super::fixture::at;
use super::runs::run;
use crate::{RunWrite, Store};

type S = Arc<dyn Store>;

/// Runs that are made for one test.
const RUNS: u64 = 120;

/// Small numbers that look random and are the same every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        let index = self.roll(of.len() as u64);
        of[usize::try_from(index).expect("small")]
    }
}

fn random(dice: &mut Dice, workspace: &WorkspaceId) -> Run {
    let created = i64::try_from(dice.roll(10 * 86_400_000)).expect("small");
    let asked = dice.roll(3) == 0;
    Run {
        thread: dice.pick(&["t1", "t2", "t3 \"ü\""]).to_owned(),
        created_by: UserId::parse(dice.pick(&["ann", "bob"])).expect("a name"),
        work: match dice.roll(4) {
            0 => Work::Command,
            _ => Work::Prompt {
                agent: dice.pick(&["mock", "claude"]).to_owned(),
                model: asked.then(|| dice.pick(&["m1", "m2"]).to_owned()),
            },
        },
        state: RunState::Booting(Boot::Queued),
        ..run(workspace, created)
    }
}

fn used(dice: &mut Dice, run: &Run, nth: u64) -> UsageEntry {
    UsageEntry {
        key: format!("{}/{nth}", run.id),
        workspace: run.workspace.clone(),
        user: run.created_by.clone(),
        run: Some(run.id.clone()),
        thread: Some(run.thread.clone()),
        agent: run.work.agent().map(str::to_owned),
        sandbox: None,
        at: Timestamp::from_millis(run.created_at.as_millis() + i64::try_from(nth).expect("small")),
        quantity: Quantity::Tokens {
            model: dice.pick(&["m1", "m2", "m3"]).to_owned(),
            tokens: Tokens {
                input: dice.roll(1_000),
                output: dice.roll(1_000),
                cache_read: dice.roll(10),
                cache_write: dice.roll(10),
            },
        },
        cost: Cost {
            model: dice.roll(5_000),
            compute: dice.roll(100),
            unpriced: dice.roll(20) == 0,
        },
        price_version: 1,
    }
}

fn end(dice: &mut Dice, run: &Run) -> RunState {
    let later = |by: u64| {
        Timestamp::from_millis(run.created_at.as_millis() + i64::try_from(by).expect("small"))
    };
    let since = (dice.roll(5) > 0).then(|| later(dice.roll(50)));
    let outcome = match dice.roll(4) {
        0 | 1 => Outcome::Succeeded,
        2 => Outcome::Canceled {
            by: None,
            reason: "no more".to_owned(),
        },
        _ => Outcome::Failed(RunError {
            category: ErrorCategory::Api,
            code: dice.pick(&["timeout", "exit_status"]).to_owned(),
            message: format!("message {}", dice.roll(3)),
            details: None,
        }),
    };
    RunState::Ended {
        since,
        at: later(dice.roll(100_000)),
        outcome,
    }
}

/// Runs of which some end, with what they used; as they are stored then.
async fn fill(store: &S, workspace: &WorkspaceId, dice: &mut Dice) -> (Vec<Run>, Vec<UsageEntry>) {
    let (mut runs, mut entries) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let mut run = random(dice, workspace);
        store
            .run_insert(&run, Vec::new(), vec![])
            .await
            .expect("stored");
        let mut write = RunWrite::of(&run);
        for nth in 0..dice.roll(4) {
            write.usage.push(used(dice, &run, nth));
        }
        entries.extend(write.usage.clone());
        if dice.roll(8) > 0 {
            run.state = end(dice, &run);
            run.generation += 1;
            write.record = Some(run.clone());
        }
        store.run_write(write).await.expect("written");
        let stored = store.run_fetch(&run.id).await.expect("asked");
        runs.push(stored.expect("it is there"));
    }
    (runs, entries)
}

fn model<'a>(run: &'a Run, entries: &'a [UsageEntry]) -> Option<&'a str> {
    if let Work::Prompt {
        model: Some(model), ..
    } = &run.work
    {
        return Some(model);
    }
    entries.iter().find_map(|entry| match &entry.quantity {
        Quantity::Tokens { model, .. } if entry.run.as_ref() == Some(&run.id) => {
            Some(model.as_str())
        }
        _ => None,
    })
}

fn fact<'a>(run: &'a Run, entries: &'a [UsageEntry]) -> RunFact<'a> {
    let (mut ended_at, mut duration_ms, mut error) = (None, None, None);
    if let RunState::Ended { since, at, outcome } = &run.state {
        ended_at = Some(*at);
        let took = |since: &Timestamp| (at.as_millis() - since.as_millis()).max(0);
        duration_ms = since
            .as_ref()
            .map(took)
            .map(|took| u64::try_from(took).expect("not less"));
        if let Outcome::Failed(failed) = outcome {
            error = Some((failed.code.as_str(), failed.message.as_str()));
        }
    }
    RunFact {
        created_at: run.created_at,
        thread: &run.thread,
        agent: run.work.agent(),
        model: model(run, entries),
        user: run.created_by.as_str(),
        state: run.state.as_str(),
        ended_at,
        duration_ms,
        error,
        tokens: run.tokens,
        cost: run.cost,
    }
}

pub async fn run_reports_are_those_of_a_loop(store: S) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (workspace, other) = (WorkspaceId::generate(), WorkspaceId::generate());
    let (runs, entries) = fill(&store, &workspace, &mut dice).await;
    fill(&store, &other, &mut dice).await;
    for _ in 0..40 {
        let some =
            |dice: &mut Dice, of: &[&str]| (dice.roll(3) == 0).then(|| dice.pick(of).to_owned());
        let from = i64::try_from(dice.roll(8 * 86_400_000)).expect("small");
        let length = i64::try_from(dice.roll(8 * 86_400_000)).expect("small");
        let by = usize::try_from(dice.roll(6)).expect("small");
        let query = RunQuery {
            from: at(from),
            until: at(from + length),
            bucket: [3_600_000, 86_400_000, 7][usize::try_from(dice.roll(3)).expect("small")],
            thread: some(&mut dice, &["t1", "t3 \"ü\""]),
            agent: some(&mut dice, &["mock", "claude", "nobody"]),
            model: some(&mut dice, &["m1", "m3"]),
            user: some(&mut dice, &["ann", "bob"]),
            by: GroupBy::ALL.get(by).copied(),
        };
        let mut tally = RunTally::new(&query);
        for fact in runs.iter().map(|run| fact(run, &entries)) {
            let is = |wanted: &Option<String>, got: Option<&str>| {
                wanted.is_none() || wanted.as_deref() == got
            };
            if fact.created_at >= query.from
                && fact.created_at < query.until
                && is(&query.thread, Some(fact.thread))
                && is(&query.agent, fact.agent)
                && is(&query.model, fact.model)
                && is(&query.user, Some(fact.user))
            {
                tally.add(&fact);
            }
        }
        let report = store.run_report(&workspace, &query).await.expect("asked");
        assert_eq!(report, tally.report(), "{query:?}");
    }
}

/// What a store remembers of earlier reports is no excuse.
pub async fn run_reports_follow_every_change(store: S) {
    const DAY: i64 = 86_400_000;
    let mut dice = Dice(4711);
    let workspace = WorkspaceId::generate();
    let query = RunQuery {
        from: Timestamp::from_millis(19_000 * DAY),
        until: Timestamp::from_millis(19_003 * DAY),
        bucket: 3_600_000,
        thread: None,
        agent: None,
        model: None,
        user: None,
        by: Some(GroupBy::Agent),
    };
    let check = async |runs: &[Run], entries: &[UsageEntry]| {
        let mut tally = RunTally::new(&query);
        for run in runs {
            tally.add(&fact(run, entries));
        }
        let report = store.run_report(&workspace, &query).await.expect("asked");
        assert_eq!(report, tally.report());
    };
    let (mut runs, mut entries): (Vec<Run>, Vec<UsageEntry>) = (Vec::new(), Vec::new());
    for nth in 0..12 {
        let mut run = random(&mut dice, &workspace);
        run.created_at = Timestamp::from_millis(19_000 * DAY + nth * DAY / 4 + 1);
        let stored = store.run_insert(&run, Vec::new(), vec![]).await;
        stored.expect("stored");
        runs.push(run);
        check(&runs, &entries).await;
    }
    for index in 0..runs.len() {
        let mut run = runs[index].clone();
        let mut write = RunWrite::of(&run);
        write.usage.push(used(&mut dice, &run, 1));
        entries.extend(write.usage.clone());
        run.state = end(&mut dice, &run);
        run.generation += 1;
        write.record = Some(run.clone());
        store.run_write(write).await.expect("written");
        let stored = store.run_fetch(&run.id).await.expect("asked");
        runs[index] = stored.expect("it is there");
        check(&runs, &entries).await;
    }
    while let Some(run) = runs.pop() {
        assert!(store.run_remove(&run.id).await.expect("removed"));
        check(&runs, &entries).await;
    }
}

pub async fn usage_reports_are_those_of_a_loop(store: S) {
    let mut dice = Dice(77);
    let workspace = WorkspaceId::generate();
    let (_, entries) = fill(&store, &workspace, &mut dice).await;
    let (from, until) = (at(86_400_000), at(6 * 86_400_000));
    for by in GroupBy::ALL {
        let mut sums: BTreeMap<Option<String>, UsageTotals> = BTreeMap::new();
        for entry in entries
            .iter()
            .filter(|one| one.at >= from && one.at < until)
        {
            let name = match (by, &entry.quantity) {
                (GroupBy::Day, _) => Some(entry.at.to_rfc3339()[..10].to_owned()),
                (GroupBy::Model, Quantity::Tokens { model, .. }) => Some(model.clone()),
                (GroupBy::Model, Quantity::Compute { .. }) => None,
                (GroupBy::User, _) => Some(entry.user.to_string()),
                (GroupBy::Thread, _) => entry.thread.clone(),
                (GroupBy::Agent, _) => entry.agent.clone(),
            };
            sums.entry(name).or_default().add(entry);
        }
        let report = store.usage_report(&workspace, from, until, by).await;
        let sums: Vec<_> = sums.into_iter().collect();
        assert_eq!(report.expect("asked"), sums, "{by:?}");
    }
}

pub async fn tools_and_states_are_counted(store: S) {
    let workspace = WorkspaceId::generate();
    let event = |kind, data: &str| NewRunEvent {
        at: at(1),
        kind,
        data: data.to_owned(),
    };
    let bash = r#"{"id":"1","name":"Bash","input":{}}"#;
    let log = vec![
        event(RunEventKind::ToolUse, bash),
        event(
            RunEventKind::ToolResult,
            r#"{"tool_use_id":"1","is_error":true}"#,
        ),
        event(RunEventKind::ToolUse, r#"{"id":"2","name":"Read"}"#),
        event(
            RunEventKind::ToolResult,
            r#"{"tool_use_id":"2","is_error":false}"#,
        ),
        event(RunEventKind::ToolUse, r#"{"id":"3","name":"Bash"}"#),
        event(RunEventKind::ToolUse, "no JSON"),
        event(RunEventKind::ToolUse, "{}"),
        event(
            RunEventKind::ToolResult,
            r#"{"tool_use_id":"9","is_error":true}"#,
        ),
    ];
    let first = Run {
        state: RunState::Booting(Boot::Queued),
        ..run(&workspace, 1)
    };
    store.run_insert(&first, log, vec![]).await.expect("stored");
    let second = Run {
        state: RunState::Booting(Boot::Queued),
        ..run(&workspace, 2)
    };
    let log = vec![event(RunEventKind::ToolUse, bash)];
    store
        .run_insert(&second, log, vec![])
        .await
        .expect("stored");
    let query = RunQuery {
        from: at(0),
        until: at(10),
        bucket: 1,
        thread: None,
        agent: None,
        model: None,
        user: None,
        by: None,
    };
    let tools = store.tool_report(&workspace, &query).await.expect("asked");
    let got: Vec<_> = tools
        .iter()
        .map(|sum| (sum.tool.as_str(), sum.runs, sum.calls, sum.errors))
        .collect();
    assert_eq!(got, [("Bash", 2, 3, 1), ("Read", 1, 1, 0)]);
    let states = store.run_states().await.expect("asked");
    assert_eq!(states, [("booting".to_owned(), 2)]);
    assert!(store.run_remove(&second.id).await.expect("removed"));
    let states = store.run_states().await.expect("asked");
    assert_eq!(states, [("booting".to_owned(), 1)]);
    let tools = store.tool_report(&workspace, &query).await.expect("asked");
    assert_eq!((tools[0].runs, tools[0].calls), (1, 2));
}
