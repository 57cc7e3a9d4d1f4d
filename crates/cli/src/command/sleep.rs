//! `woodfrog sandbox pause`, `hibernate`, `resume` and the like.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use woodfrog_types::Timestamp;
use woodfrog_wire::native::sandbox::Sandbox;
use woodfrog_wire::native::sleep::{
    Checkpoint, Content, Fork, Forks, Hibernate, Holds, NewHold, NextRung, Resume, Resumed,
    SetSleepPolicy, Wakefulness,
};
use woodfrog_wire::native::snapshot::Snapshot;

use super::{Outcome, Usage};
use crate::args::{After, SleepArgs, SleepCommand, Target};
use crate::client::{Client, ClientError};
use crate::output;

/// Sandboxes that are changed at the same time.
const AT_ONCE: usize = 8;

pub(super) async fn run(command: SleepCommand) -> Outcome {
    match command {
        SleepCommand::Pause { ids, target } => {
            let done = |sandbox: &Sandbox| sandbox.clone();
            each(&ids, &target, "pausing", "pause", &(), done).await
        }
        SleepCommand::Hibernate {
            ids,
            files_only,
            target,
        } => {
            let content = content(files_only);
            let request = Hibernate { content };
            let done = |sandbox: &Sandbox| sandbox.clone();
            each(&ids, &target, "hibernating", "hibernate", &request, done).await
        }
        SleepCommand::Resume {
            ids,
            reboot,
            timeout,
            target,
        } => {
            let request = Resume {
                content: content(reboot),
                timeout_seconds: timeout.map(i64::from),
            };
            let done = |resumed: &Resumed| resumed.sandbox.clone();
            each(&ids, &target, "waking", "resume", &request, done).await
        }
        SleepCommand::Archive { ids, target } => {
            let done = |sandbox: &Sandbox| sandbox.clone();
            each(&ids, &target, "archiving", "archive", &(), done).await
        }
        SleepCommand::Checkpoint {
            id,
            name,
            labels,
            files_only,
            target,
        } => {
            let request = Checkpoint {
                name,
                content: content(files_only),
                labels: labels.into_iter().collect(),
            };
            checkpoint(&id, &request, &target).await
        }
        SleepCommand::Fork {
            id,
            count,
            timeout,
            target,
        } => {
            let request = Fork {
                count: Some(count),
                timeout_seconds: Some(i64::from(timeout)).filter(|seconds| *seconds > 0),
            };
            fork(&id, &request, &target).await
        }
        SleepCommand::Hold {
            id,
            name,
            time,
            release,
            target,
        } => hold(&id, &name, time, release, &target).await,
        SleepCommand::Why { id, target } => why(&id, &target).await,
        SleepCommand::SleepPolicy { id, sleep, target } => policy(&id, sleep, &target).await,
    }
}

const fn content(files_only: bool) -> Content {
    match files_only {
        true => Content::Filesystem,
        false => Content::Memory,
    }
}

/// What the flags say, as a request has it.
pub(super) fn sleep(args: SleepArgs) -> SetSleepPolicy {
    let seconds = |after: Option<After>| {
        after.map(|after| match after {
            After::Never => None,
            After::Time(time) => Some(time.as_secs()),
        })
    };
    SetSleepPolicy {
        pause_after_seconds: seconds(args.pause_after),
        hibernate_after_seconds: seconds(args.hibernate_after),
        archive_after_seconds: seconds(args.archive_after),
        delete_after_seconds: seconds(args.delete_after),
        fallback: None,
        checkpoint_every_seconds: seconds(args.checkpoint_every),
    }
}

/// What was said before, but for what is said now.
pub(super) fn merged(before: SetSleepPolicy, now: SetSleepPolicy) -> SetSleepPolicy {
    SetSleepPolicy {
        pause_after_seconds: now.pause_after_seconds.or(before.pause_after_seconds),
        hibernate_after_seconds: now
            .hibernate_after_seconds
            .or(before.hibernate_after_seconds),
        archive_after_seconds: now.archive_after_seconds.or(before.archive_after_seconds),
        delete_after_seconds: now.delete_after_seconds.or(before.delete_after_seconds),
        fallback: now.fallback.or(before.fallback),
        checkpoint_every_seconds: now
            .checkpoint_every_seconds
            .or(before.checkpoint_every_seconds),
    }
}

/// Asks the same of several sandboxes and prints what became of each; what failed is told one by
/// one.
async fn each<B, T>(
    ids: &[String],
    target: &Target,
    doing: &str,
    route: &str,
    body: &B,
    sandbox: impl Fn(&T) -> Sandbox,
) -> Outcome
where
    B: Serialize,
    T: DeserializeOwned + Serialize,
{
    let client = Client::new(target)?;
    let spinner = output::spinner(target, format!("{doing} {}", ids.join(" ")));
    let asked: Vec<(&String, Result<T, ClientError>)> = stream::iter(ids)
        .map(|id| {
            let request = client.post(&["sandboxes", id, route]).json(body);
            let client = &client;
            async move { (id, client.json(request).await) }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    drop(spinner);
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (id, answer) in asked {
        match answer {
            Ok(answer) => done.push(answer),
            Err(error) => failed.push((id, error)),
        }
    }
    if target.json {
        match (ids.len(), done.first()) {
            (1, Some(only)) => output::json(only)?,
            _ => output::json(&done)?,
        }
    } else {
        let now = Timestamp::now();
        for answer in &done {
            let sandbox = sandbox(answer);
            output::line(&format!("{} {}", sandbox.id, state(&sandbox, now)))?;
        }
    }
    let Some((_, last)) = failed.pop() else {
        return Ok(0);
    };
    for (id, error) in failed {
        output::note(&format!("error: {id}: {error}"));
    }
    Err(last.into())
}

/// A sandbox's state and what it will be: `paused, hibernates in 4m`.
pub(super) fn state(sandbox: &Sandbox, now: Timestamp) -> String {
    match &sandbox.next {
        Some(next) => format!("{}, {}", sandbox.state, countdown(next, now)),
        None => sandbox.state.clone(),
    }
}

/// `hibernates in 4m`.
pub(super) fn countdown(next: &NextRung, now: Timestamp) -> String {
    let what = match next.state.as_str() {
        "paused" => "pauses",
        "hibernated" => "hibernates",
        "archived" => "goes to the archive",
        "deleted" => "is deleted",
        other => other,
    };
    let left = Timestamp::from_millis(next.at).since(now);
    format!("{what} in {}", output::span(left))
}

async fn checkpoint(id: &str, request: &Checkpoint, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let spinner = output::spinner(target, format!("saving {id}"));
    let route = client.post(&["sandboxes", id, "checkpoint"]).json(request);
    let taken: Snapshot = client.json(route).await?;
    drop(spinner);
    if target.json {
        output::json(&taken)?;
    } else {
        output::line(&taken.id)?;
    }
    Ok(0)
}

/// Prints the ids of the copies; exits with 1 if there are fewer than were asked for.
async fn fork(id: &str, request: &Fork, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let spinner = output::spinner(target, format!("copying {id}"));
    let route = client.post(&["sandboxes", id, "fork"]).json(request);
    let forks: Forks = client.json(route).await?;
    drop(spinner);
    if target.json {
        output::json(&forks)?;
    }
    let mut code = 0;
    for fork in &forks.items {
        if let Some(sandbox) = fork.sandbox.as_ref().filter(|_| !target.json) {
            output::line(&sandbox.id)?;
        }
        if let Some(error) = &fork.error {
            output::note(&format!(
                "error: a copy could not be made: {}",
                error.detail
            ));
            code = super::EXIT_FAILURE;
        }
    }
    Ok(code)
}

async fn hold(
    id: &str,
    name: &str,
    time: Option<Duration>,
    release: bool,
    target: &Target,
) -> Outcome {
    let client = Client::new(target)?;
    let url = client.route(&["sandboxes", id, "holds", name]);
    let request = match release {
        true => client.request(reqwest::Method::DELETE, url),
        false => {
            let ttl_seconds = time.map(|time| time.as_secs());
            let body = NewHold { ttl_seconds };
            client.request(reqwest::Method::PUT, url).json(&body)
        }
    };
    let holds: Holds = client.json(request).await?;
    if target.json {
        output::json(&holds)?;
        return Ok(0);
    }
    if holds.items.is_empty() {
        output::note("nothing holds it");
    }
    for hold in &holds.items {
        output::line(&until(&hold.name, hold.expires_at, Timestamp::now()))?;
    }
    Ok(0)
}

/// `run-1, for 4m more`.
fn until(name: &str, expires_at: Option<i64>, now: Timestamp) -> String {
    match expires_at {
        Some(at) => {
            let left = Timestamp::from_millis(at).since(now);
            format!("{name}, for {} more", output::span(left))
        }
        None => format!("{name}, until it is released"),
    }
}

async fn why(id: &str, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let why: Wakefulness = client
        .json(client.get(&["sandboxes", id, "wakefulness"]))
        .await?;
    if target.json {
        output::json(&why)?;
        return Ok(0);
    }
    let now = Timestamp::now();
    output::line(&why.state)?;
    for reason in &why.reasons {
        output::line(&format!("  {reason}"))?;
    }
    for hold in &why.holds {
        let text = until(&hold.name, hold.expires_at, now);
        output::line(&format!("  held: {text}"))?;
    }
    match &why.next {
        Some(next) => output::line(&format!("it {}", countdown(next, now)))?,
        None => output::line("it stays as it is")?,
    }
    Ok(0)
}

async fn policy(id: &str, args: SleepArgs, target: &Target) -> Outcome {
    if args == SleepArgs::default() {
        return Err(Usage("say what changes: --pause-after, --hibernate-after, …".into()).into());
    }
    let client = Client::new(target)?;
    let url = client.route(&["sandboxes", id, "sleep-policy"]);
    let request = client.request(reqwest::Method::PUT, url);
    let changed: Sandbox = client.json(request.json(&sleep(args))).await?;
    if target.json {
        output::json(&changed)?;
    } else {
        output::line(&describe(&changed))?;
    }
    Ok(0)
}

/// A sandbox's policy in words: `paused after 10m, deleted after 30d asleep`.
pub(super) fn describe(sandbox: &Sandbox) -> String {
    let policy = &sandbox.sleep_policy;
    let rungs = [
        ("paused after", policy.pause_after_seconds),
        ("hibernated after", policy.hibernate_after_seconds),
        ("archived after", policy.archive_after_seconds),
        ("deleted after", policy.delete_after_seconds),
        ("saved every", policy.checkpoint_every_seconds),
    ];
    let rungs = rungs.map(|(what, seconds)| {
        let span = |seconds| output::span(Duration::from_secs(seconds));
        seconds.map(|seconds| format!("{what} {}", span(seconds)))
    });
    let texts: Vec<String> = rungs.into_iter().flatten().collect();
    match texts.is_empty() {
        true => "never".to_owned(),
        false => texts.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_next_is_said_in_words() {
        let now = Timestamp::from_millis(0);
        for (state, text) in [
            ("paused", "pauses in 4m"),
            ("hibernated", "hibernates in 4m"),
            ("archived", "goes to the archive in 4m"),
            ("deleted", "is deleted in 4m"),
        ] {
            let next = NextRung {
                state: state.to_owned(),
                at: 240_000,
            };
            assert_eq!(countdown(&next, now), text);
        }
    }

    #[test]
    fn what_is_not_said_now_stays_said() {
        let before = SetSleepPolicy {
            pause_after_seconds: Some(Some(5)),
            delete_after_seconds: Some(Some(9)),
            ..SetSleepPolicy::default()
        };
        let now = SetSleepPolicy {
            pause_after_seconds: Some(None),
            checkpoint_every_seconds: Some(Some(60)),
            ..SetSleepPolicy::default()
        };
        let wanted = SetSleepPolicy {
            pause_after_seconds: Some(None),
            delete_after_seconds: Some(Some(9)),
            checkpoint_every_seconds: Some(Some(60)),
            ..SetSleepPolicy::default()
        };
        assert_eq!(merged(before, now), wanted);
    }

    #[test]
    fn never_is_null_and_what_is_not_given_is_absent() {
        let args = SleepArgs {
            pause_after: Some(After::Never),
            delete_after: Some(After::Time(Duration::from_secs(60))),
            ..SleepArgs::default()
        };
        let json = serde_json::to_value(sleep(args)).expect("json");
        assert_eq!(
            json,
            serde_json::json!({"pause_after_seconds": null, "delete_after_seconds": 60})
        );
    }
}
