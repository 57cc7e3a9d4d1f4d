//! `woodfrog run`.

use std::collections::BTreeMap;

use reqwest::Method;
use serde_json::{Value, json};
use woodfrog_types::Timestamp;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_wire::native::page::Page;
use woodfrog_wire::native::run::{Canceled, Run, RunEvent};

use super::{Outcome, Usage};
use crate::args::{RunCommand, StartArgs, Target};
use crate::client::{Client, Lines};
use crate::output;

/// How often in a row the server may be out of reach: it may be restarted during a run.
const LOST_MAX: u32 = 50;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

pub(super) async fn run(command: RunCommand) -> Outcome {
    match command {
        RunCommand::Start(args) => {
            let body = body(&args)?;
            start(&body, args.detach, &args.target).await
        }
        RunCommand::Watch { id, after, target } => watch(&id, after, &target).await,
        RunCommand::List {
            thread,
            status,
            limit,
            target,
        } => {
            let mut query = Vec::new();
            query.extend(thread.map(|thread| ("thread", thread)));
            query.extend(status.map(|status| ("status", status)));
            list(&query, limit, &target).await
        }
        RunCommand::Show { id, target } => {
            let client = Client::new(&target)?;
            let run: Run = client.json(client.get(&["runs", &id])).await?;
            show(&run, &target)
        }
        RunCommand::Delete { ids, target } => {
            let client = Client::new(&target)?;
            for id in &ids {
                client.send(client.delete(&["runs", id])).await?;
            }
            Ok(0)
        }
        RunCommand::Cancel {
            ids,
            reason,
            target,
        } => cancel(&ids, reason.as_deref(), &target).await,
    }
}

/// What is asked of the server.
fn body(args: &StartArgs) -> anyhow::Result<Value> {
    if args.prompt.is_none() && args.command.is_empty() {
        let text = "give a command behind `--`, or --agent and --prompt";
        return Err(Usage(text.to_owned()).into());
    }
    let command = (!args.command.is_empty()).then(|| joined(&args.command));
    let artifacts = args.artifacts.then(|| {
        json!({
            "paths": args.artifact_paths,
            "exclude": args.artifact_excludes,
            "max_bytes": args.artifact_max_size,
            "max_files": args.artifact_max_files,
        })
    });
    Ok(json!({
        "agent": args.agent,
        "prompt": args.prompt,
        "model": args.model,
        "command": command,
        "thread": args.thread,
        "template": args.template,
        "sandbox": args.sandbox,
        "share_sandbox": args.share_sandbox,
        "at_end": args.at_end,
        "env": pairs("--env", &args.env)?,
        "secrets": pairs("--secret", &args.secrets)?,
        "cwd": args.cwd,
        "timeout": args.timeout.map(|time| time.as_secs().max(1)),
        "priority": args.priority,
        "artifacts": artifacts,
        "track": !args.no_track,
    }))
}

/// One word is a line for the shell as it is; several are quoted.
fn joined(words: &[String]) -> String {
    if let [line] = words {
        return line.clone();
    }
    let quoted = words.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
        match !word.is_empty() && word.chars().all(plain) {
            true => word.clone(),
            false => format!("'{}'", word.replace('\'', r"'\''")),
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

fn pairs(flag: &str, all: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    all.iter()
        .map(|pair| {
            let (name, value) = pair
                .split_once('=')
                .ok_or_else(|| Usage(format!("{flag} wants NAME=VALUE")))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

async fn start(body: &Value, detach: bool, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let run: Run = client.json(client.post(&["runs"]).json(body)).await?;
    if detach {
        match target.json {
            true => output::json(&run)?,
            false => output::line(&run.id)?,
        }
        return Ok(0);
    }
    if !target.json {
        output::note(&format!("run {}", run.id));
    }
    watch(&run.id, 0, target).await
}

/// Prints what comes until the run is over; the exit code is 0 if it succeeded.
async fn watch(id: &str, mut after: u64, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let mut lost = 0;
    loop {
        let mut url = client.route(&["runs", id, "events"]);
        url.query_pairs_mut()
            .append_pair("after", &after.to_string());
        let request = client.request(Method::GET, url);
        let request = request.header("accept", "text/event-stream");
        let seen = after;
        let broken = match client.send(request).await {
            Ok(response) => follow(Lines::new(response), &mut after, target).await.err(),
            Err(error) if lost == 0 && seen == 0 => return Err(error.into()),
            Err(error) => Some(error.into()),
        };
        if let Ok(run) = client.json::<Run>(client.get(&["runs", id])).await
            && run.finished_at.is_some()
            && after >= run.last_event
        {
            return conclude(&run, target);
        }
        lost = if after > seen { 0 } else { lost + 1 };
        if let Some(error) = broken.filter(|_| lost > LOST_MAX) {
            return Err(error);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow(mut lines: Lines, after: &mut u64, target: &Target) -> anyhow::Result<()> {
    while let Some(data) = lines.data().await? {
        let event: RunEvent = serde_json::from_slice(&data)?;
        *after = event.id;
        if target.json {
            output::line(&serde_json::to_string(&event)?)?;
        } else {
            print(&event)?;
        }
    }
    Ok(())
}

fn print(event: &RunEvent) -> std::io::Result<()> {
    let data = &event.data;
    let text = |field: &str| data[field].as_str().unwrap_or_default().to_owned();
    match event.kind.as_str() {
        "text" => output::text(&text("text"))?,
        "raw" if data["stream"] == "stderr" => output::note(&text("text")),
        "raw" => output::line(&text("text"))?,
        "tool_use" => output::note(&format!("\n→ {} {}", text("name"), short(&data["input"]))),
        "tool_result" if data["is_error"] == true => {
            output::note(&format!("✗ {}", short(&data["content"])));
        }
        "tool_result" => output::note(&format!("✓ {}", short(&data["content"]))),
        "error" => output::note(&format!("error: {}", text("message"))),
        "status" if data["held"].is_string() => {
            output::note(&format!("on hold: {}", text("held")));
        }
        "status" if data["artifacts"].is_object() => artifacts(&data["artifacts"]),
        _ => {}
    }
    Ok(())
}

/// What was kept of its files, and what was not, and why.
fn artifacts(data: &Value) {
    let count = |field: &str| data[field].as_u64().unwrap_or_default();
    let bytes = output::bytes(count("bytes"));
    output::note(&format!("{} artifacts, {bytes}", count("kept")));
    let left_out = data["left_out"].as_array();
    let told = left_out.map_or(&[][..], Vec::as_slice);
    for one in told {
        let (path, reason) = (short(&one["path"]), short(&one["reason"]));
        output::note(&format!("  not kept: {path} ({reason})"));
    }
    let more = count("left_out_count").saturating_sub(told.len() as u64);
    if more > 0 {
        output::note(&format!("  not kept: {more} more"));
    }
    if let Some(why) = data["incomplete"].as_str() {
        output::note(&format!("  there may be more: {why}"));
    }
}

/// One line of something.
fn short(value: &Value) -> String {
    const CHARS: usize = 120;
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

fn conclude(run: &Run, target: &Target) -> Outcome {
    if !target.json {
        output::note(&format!("\n{}", summary(run)));
    }
    Ok(u8::from(run.status != "succeeded"))
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn summary(run: &Run) -> String {
    let seconds = run.duration_ms as f64 / 1000.0;
    let tokens = run.tokens;
    let used = tokens.input + tokens.output + tokens.cache_read + tokens.cache_write;
    let dollars = run.cost.total as f64 / 1_000_000.0;
    let more = if run.cost.unpriced { "+" } else { "" };
    format!(
        "{} after {seconds:.1} s, {} tool calls, {used} tokens, ${dollars:.6}{more}",
        run.status, run.stats.tool_calls
    )
}

fn show(run: &Run, target: &Target) -> Outcome {
    if target.json {
        output::json(run)?;
        return Ok(0);
    }
    output::line(&format!("{}  {}", run.id, summary(run)))?;
    let absent = || "-".to_owned();
    for (name, value) in [
        ("thread", run.thread.clone()),
        ("by", run.created_by.clone()),
        ("sandbox", run.sandbox.clone().unwrap_or_else(absent)),
        ("session", run.session.clone().unwrap_or_else(absent)),
        (
            "created",
            Timestamp::from_millis(run.created_at).to_rfc3339(),
        ),
    ] {
        output::line(&format!("  {name:<8} {value}"))?;
    }
    if let Some(place) = run.queue_place {
        output::line(&format!("  waits    at place {place}"))?;
    }
    if let Some(error) = &run.error {
        output::line(&format!("  {:<8} {}", error.code, error.message))?;
    }
    if let Some(result) = &run.result {
        output::line(&format!("  result   {result}"))?;
    }
    Ok(0)
}

async fn list(query: &[(&str, String)], limit: usize, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let mut all: Vec<Run> = Vec::new();
    let mut cursor: Option<String> = None;
    while all.len() < limit {
        let mut url = client.route(&["runs"]);
        {
            let mut pairs = url.query_pairs_mut();
            let size = (limit - all.len()).min(PAGE_ITEMS_MAX);
            pairs.append_pair("limit", &size.to_string());
            pairs.extend_pairs(query);
            if let Some(cursor) = &cursor {
                pairs.append_pair("cursor", cursor);
            }
        }
        let page: Page<Run> = client.json(client.request(Method::GET, url)).await?;
        all.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if target.json {
        output::json(&all)?;
        return Ok(0);
    }
    for run in &all {
        let created = Timestamp::from_millis(run.created_at).to_rfc3339();
        output::line(&format!("{}  {created}  {}", run.id, summary(run)))?;
    }
    Ok(0)
}

async fn cancel(ids: &[String], reason: Option<&str>, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    for id in ids {
        let request = client.post(&["runs", id, "cancel"]);
        let canceled: Canceled = client
            .json(request.json(&json!({"reason": reason})))
            .await?;
        if target.json {
            output::json(&canceled)?;
        } else {
            let message = canceled.message.unwrap_or_else(|| "canceled".to_owned());
            output::line(&format!("{id}  {message}"))?;
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        let join = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            joined(&words)
        };
        assert_eq!(join(&["echo a && echo b"]), "echo a && echo b");
        assert_eq!(
            join(&["echo", "a b", "it's", ""]),
            r"echo 'a b' 'it'\''s' ''"
        );
    }
}
