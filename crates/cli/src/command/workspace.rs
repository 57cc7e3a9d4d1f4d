//! `woodfrog workspace`.

use std::time::Duration;

use reqwest::Method;
use woodfrog_types::Timestamp;
use woodfrog_wire::native::sleep::SetSleepPolicy;
use woodfrog_wire::native::workspace::{
    Limits, LimitsChange, LimitsRecord, NewWorkspace, Removals, SleepDefaults, SleepDefaultsChange,
    Workspace, WorkspaceChange, Workspaces,
};

use super::{Outcome, Usage, sleep};
use crate::args::{LimitArgs, LimitsCommand, SleepArgs, WorkspaceCommand, WorkspaceSleepCommand};
use crate::client::Client;
use crate::output;

/// The workspace that the flags or the key say.
const CURRENT: [&str; 2] = ["workspaces", "current"];
const LIMITS: [&str; 3] = ["workspaces", "current", "limits"];
const SLEEP: [&str; 3] = ["workspaces", "current", "sleep"];
/// Between two looks at how far a removal is.
const LOOK: Duration = Duration::from_millis(300);

pub(super) async fn run(command: WorkspaceCommand) -> Outcome {
    match command {
        WorkspaceCommand::Create {
            name,
            owner,
            target,
        } => {
            let client = Client::new(&target)?;
            let request = client.post(&["workspaces"]);
            let made: Workspace = client
                .json(request.json(&NewWorkspace { name, owner }))
                .await?;
            match target.json {
                true => output::json(&made)?,
                false => output::line(&made.id)?,
            }
        }
        WorkspaceCommand::List { target } => {
            let items = list(&Client::new(&target)?).await?;
            if target.json {
                output::json(&items)?;
            } else {
                let rows: Vec<Vec<String>> = items.iter().map(row).collect();
                let headings = ["ID", "NAME", "OWNER", "YOU ARE", "CREATED", "STATE"];
                output::table(&headings, &rows)?;
            }
        }
        WorkspaceCommand::Show { target } => {
            let client = Client::new(&target)?;
            let one: Workspace = client.json(client.get(&CURRENT)).await?;
            show(&one, target.json)?;
        }
        WorkspaceCommand::Rename { name, target } => {
            let client = Client::new(&target)?;
            let request = client.request(Method::PATCH, client.route(&CURRENT));
            let one: Workspace = client.json(request.json(&WorkspaceChange { name })).await?;
            show(&one, target.json)?;
        }
        WorkspaceCommand::Remove {
            which,
            wait,
            target,
        } => {
            let client = Client::new(&target)?;
            let request = client.delete(&["workspaces", &which]);
            let marked: Workspace = client.json(request).await?;
            if wait {
                gone(&client, &marked.id).await?;
            }
            if target.json {
                output::json(&serde_json::json!({ "removed": marked.id, "gone": wait }))?;
            }
        }
        WorkspaceCommand::Limits(command) => limits(command).await?,
        WorkspaceCommand::Sleep(command) => sleep_defaults(command).await?,
    }
    Ok(0)
}

async fn sleep_defaults(command: WorkspaceSleepCommand) -> anyhow::Result<()> {
    let (client, target, said) = match command {
        WorkspaceSleepCommand::Show { target } => (Client::new(&target)?, target, None),
        WorkspaceSleepCommand::Reset { target } => {
            let said = SetSleepPolicy::default();
            (Client::new(&target)?, target, Some((said, None)))
        }
        WorkspaceSleepCommand::Set { sleep, target } => {
            if sleep == SleepArgs::default() {
                let text = "say what changes: --pause-after, --hibernate-after, …";
                return Err(Usage(text.into()).into());
            }
            let client = Client::new(&target)?;
            let before: SleepDefaults = client.json(client.get(&SLEEP)).await?;
            let said = sleep::merged(before.sleep, sleep::sleep(sleep));
            (client, target, Some((said, Some(before.generation))))
        }
    };
    let shown: SleepDefaults = match said {
        None => client.json(client.get(&SLEEP)).await?,
        Some((sleep, generation)) => {
            let change = SleepDefaultsChange { sleep, generation };
            let request = client.request(Method::PUT, client.route(&SLEEP));
            client.json(request.json(&change)).await?
        }
    };
    show_sleep(&shown, target.json)?;
    Ok(())
}

fn show_sleep(shown: &SleepDefaults, json: bool) -> std::io::Result<()> {
    if json {
        return output::json(shown);
    }
    let (said, holds) = (&shown.sleep, &shown.effective);
    let rungs = [
        (
            "paused after",
            said.pause_after_seconds.is_some(),
            holds.pause_after_seconds,
        ),
        (
            "hibernated after",
            said.hibernate_after_seconds.is_some(),
            holds.hibernate_after_seconds,
        ),
        (
            "archived after",
            said.archive_after_seconds.is_some(),
            holds.archive_after_seconds,
        ),
        (
            "deleted after",
            said.delete_after_seconds.is_some(),
            holds.delete_after_seconds,
        ),
        (
            "saved every",
            said.checkpoint_every_seconds.is_some(),
            holds.checkpoint_every_seconds,
        ),
    ];
    let pairs = rungs.map(|(what, own, seconds)| {
        let span = |seconds| output::span(Duration::from_secs(seconds));
        let time = seconds.map_or_else(|| "never".to_owned(), span);
        let whose = if own { "the workspace" } else { "the server" };
        (what, format!("{time} (set by {whose})"))
    });
    output::fields(&pairs)
}

async fn limits(command: LimitsCommand) -> anyhow::Result<()> {
    match command {
        LimitsCommand::Show { target } => {
            let client = Client::new(&target)?;
            let record: LimitsRecord = client.json(client.get(&LIMITS)).await?;
            show_limits(&record, target.json)
        }
        LimitsCommand::Set { limits, target } => {
            let client = Client::new(&target)?;
            let before: LimitsRecord = client.json(client.get(&LIMITS)).await?;
            let change = LimitsChange {
                limits: changed(before.limits, limits),
                generation: Some(before.generation),
            };
            let request = client.request(Method::PUT, client.route(&LIMITS));
            let record: LimitsRecord = client.json(request.json(&change)).await?;
            show_limits(&record, target.json)
        }
    }
}

fn changed(before: Limits, change: LimitArgs) -> Limits {
    Limits {
        user_runs_per_minute: change
            .user_runs_per_minute
            .unwrap_or(before.user_runs_per_minute),
        runs_per_minute: change.runs_per_minute.unwrap_or(before.runs_per_minute),
        run_burst: change.run_burst.unwrap_or(before.run_burst),
        runs_at_once: change.runs_at_once.unwrap_or(before.runs_at_once),
        run_queue: change.run_queue.unwrap_or(before.run_queue),
        user_requests_per_minute: change
            .user_requests_per_minute
            .unwrap_or(before.user_requests_per_minute),
        requests_per_minute: change
            .requests_per_minute
            .unwrap_or(before.requests_per_minute),
        request_burst: change.request_burst.unwrap_or(before.request_burst),
        sandboxes: change.sandboxes.unwrap_or(before.sandboxes),
        cpus: change.cpus.unwrap_or(before.cpus),
        memory_bytes: change.memory.unwrap_or(before.memory_bytes),
        disk_bytes: change.disk.unwrap_or(before.disk_bytes),
        prompt_retention_days: change
            .prompt_retention_days
            .unwrap_or(before.prompt_retention_days),
        run_retention_days: change
            .run_retention_days
            .unwrap_or(before.run_retention_days),
        artifact_retention_days: change
            .artifact_retention_days
            .unwrap_or(before.artifact_retention_days),
        audit_retention_days: change
            .audit_retention_days
            .unwrap_or(before.audit_retention_days),
    }
}

fn show_limits(record: &LimitsRecord, json: bool) -> anyhow::Result<()> {
    if json {
        output::json(record)?;
        return Ok(());
    }
    let serde_json::Value::Object(limits) = serde_json::to_value(&record.limits)? else {
        return Ok(());
    };
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::Null => "none".to_owned(),
        value => value.to_string(),
    };
    let mut pairs: Vec<(&str, String)> = limits
        .iter()
        .map(|(name, value)| (name.as_str(), text(value)))
        .collect();
    pairs.push(("generation", record.generation.to_string()));
    output::fields(&pairs)?;
    Ok(())
}

async fn list(client: &Client) -> anyhow::Result<Vec<Workspace>> {
    let (mut items, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut url = client.route(&["workspaces"]);
        if let Some(cursor) = &cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let page: Workspaces = client.json(client.request(Method::GET, url)).await?;
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(items);
        }
    }
}

/// Waits until the server has removed it.
async fn gone(client: &Client, id: &str) -> anyhow::Result<()> {
    loop {
        let request = client.get(&["workspaces", "removals"]);
        let removals: Removals = client.json(request).await?;
        if !removals.items.iter().any(|one| one.id == id) {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn show(one: &Workspace, json: bool) -> std::io::Result<()> {
    if json {
        return output::json(one);
    }
    output::fields(&[
        ("id", one.id.clone()),
        ("name", one.name.clone()),
        ("owner", one.owner.clone()),
        ("you are", one.role.as_str().to_owned()),
        (
            "created",
            Timestamp::from_millis(one.created_at).to_rfc3339(),
        ),
    ])
}

fn row(one: &Workspace) -> Vec<String> {
    let state = match one.removing_since {
        Some(_) => "being removed",
        None => "",
    };
    vec![
        one.id.clone(),
        one.name.clone(),
        one.owner.clone(),
        one.role.as_str().to_owned(),
        Timestamp::from_millis(one.created_at).to_rfc3339(),
        state.to_owned(),
    ]
}
