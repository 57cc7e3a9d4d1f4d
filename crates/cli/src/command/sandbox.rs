//! `woodfrog sandbox`.

use std::collections::BTreeMap;

use futures_util::{StreamExt, stream};
use woodfrog_types::Timestamp;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_wire::native::page::Page;
use woodfrog_wire::native::sandbox::{NewResources, NewSandbox, Sandbox, VolumeMount};
use woodfrog_wire::native::sleep::{OnTimeout, Wakefulness};

use super::{Outcome, Usage, cp, exec, network, shell, sleep};
use crate::args::{CreateArgs, SandboxCommand, Target};
use crate::client::{Client, ClientError};
use crate::output;

/// Sandboxes that are deleted at the same time.
const DELETES_AT_ONCE: usize = 16;

pub(super) async fn run(command: SandboxCommand) -> Outcome {
    match command {
        SandboxCommand::Create(args) => create(args).await,
        SandboxCommand::List {
            metadata,
            state,
            limit,
            target,
        } => list(&metadata, &state, limit, &target).await,
        SandboxCommand::Show { id, target } => show(&id, &target).await,
        SandboxCommand::Exec(args) => exec::run(args).await,
        SandboxCommand::Shell {
            id,
            user,
            cwd,
            target,
        } => shell::run(&id, user, cwd, &target).await,
        SandboxCommand::Cp {
            from,
            to,
            user,
            target,
        } => cp::run(&from, &to, user.as_deref(), &target).await,
        SandboxCommand::Network {
            id,
            network,
            target,
        } => network::replace(&id, &network, &target).await,
        SandboxCommand::Sleep(command) => sleep::run(command).await,
        SandboxCommand::Delete { ids, target } => delete(&ids, &target).await,
    }
}

async fn create(args: CreateArgs) -> Outcome {
    let client = Client::new(&args.target)?;
    let request = new_sandbox(&args)?;
    let made: Sandbox = client
        .json(client.post(&["sandboxes"]).json(&request))
        .await?;
    if args.target.json {
        output::json(&made)?;
    } else {
        output::line(&made.id)?;
    }
    Ok(0)
}

fn new_sandbox(args: &CreateArgs) -> anyhow::Result<NewSandbox> {
    let resources = NewResources {
        cpu_count: args.cpus,
        memory_bytes: args.memory,
        disk_bytes: args.disk,
        pids: None,
    };
    Ok(NewSandbox {
        template: Some(args.template.clone()),
        timeout_seconds: Some(i64::from(args.timeout)).filter(|seconds| *seconds > 0),
        on_timeout: match args.keep {
            true => OnTimeout::Hibernate,
            false => OnTimeout::Delete,
        },
        auto_resume: args.auto_resume,
        sleep: sleep::sleep(args.sleep),
        metadata: args.metadata.iter().cloned().collect(),
        env: args.env.iter().cloned().collect(),
        network: network::network(&args.network)?,
        secure: None,
        volumes: (args.volumes.iter().cloned())
            .map(|(name, path)| VolumeMount { name, path })
            .collect(),
        resources: Some(resources).filter(|wanted| *wanted != NewResources::default()),
    })
}

async fn list(
    metadata: &[(String, String)],
    states: &[String],
    limit: usize,
    target: &Target,
) -> Outcome {
    let client = Client::new(target)?;
    let filter = filter("metadata", metadata)?;
    let states = states.join(",");
    let mut all: Vec<Sandbox> = Vec::new();
    let mut cursor: Option<String> = None;
    while all.len() < limit {
        let mut url = client.route(&["sandboxes"]);
        {
            let mut query = url.query_pairs_mut();
            let size = (limit - all.len()).min(PAGE_ITEMS_MAX);
            query.append_pair("limit", &size.to_string());
            if !filter.is_empty() {
                query.append_pair("metadata", &filter);
            }
            if !states.is_empty() {
                query.append_pair("state", &states);
            }
            if let Some(cursor) = &cursor {
                query.append_pair("cursor", cursor);
            }
        }
        let request = client.request(reqwest::Method::GET, url);
        let page: Page<Sandbox> = client.json(request).await?;
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
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    output::table(
        &["ID", "TEMPLATE", "STATE", "AGE", "ENDS IN", "METADATA"],
        &rows,
    )?;
    if cursor.is_some() {
        output::note(&format!(
            "there are more than {limit}; see them with --limit"
        ));
    }
    Ok(0)
}

/// Pairs as a query has them.
pub(super) fn filter(what: &str, wanted: &[(String, String)]) -> Result<String, Usage> {
    let mut pairs = Vec::with_capacity(wanted.len());
    for (key, value) in wanted {
        if key.contains(',') || value.contains(',') {
            return Err(Usage(format!("{what} to match must have no commas")));
        }
        pairs.push(format!("{key}={value}"));
    }
    Ok(pairs.join(","))
}

fn row(sandbox: &Sandbox) -> Vec<String> {
    let now = Timestamp::now();
    vec![
        sandbox.id.clone(),
        template(sandbox).to_owned(),
        sleep::state(sandbox, now),
        output::span(now.since(Timestamp::from_millis(sandbox.created_at))),
        deadline(sandbox, now),
        pairs(&sandbox.metadata),
    ]
}

fn template(sandbox: &Sandbox) -> &str {
    sandbox.template.as_deref().unwrap_or(&sandbox.template_id)
}

fn deadline(sandbox: &Sandbox, now: Timestamp) -> String {
    match sandbox.deadline {
        None => "never".to_owned(),
        Some(at) => output::span(Timestamp::from_millis(at).since(now)),
    }
}

fn volumes(sandbox: &Sandbox) -> String {
    let mounts = sandbox.volumes.iter();
    let mounts: Vec<String> = mounts
        .map(|one| format!("{}:{}", one.name, one.path))
        .collect();
    mounts.join(" ")
}

/// `key=value` for people.
pub(super) fn pairs(map: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = map.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(" ")
}

async fn show(id: &str, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let sandbox: Sandbox = client.json(client.get(&["sandboxes", id])).await?;
    if target.json {
        output::json(&sandbox)?;
        return Ok(0);
    }
    // One that is awake is asked when it falls asleep; an older server does not know.
    let why = client.get(&["sandboxes", id, "wakefulness"]);
    let why: Option<Wakefulness> = client.json(why).await.ok();
    let now = Timestamp::now();
    let state = match why.and_then(|why| why.next) {
        Some(next) if sandbox.next.is_none() => {
            format!("{}, {}", sandbox.state, sleep::countdown(&next, now))
        }
        _ => sleep::state(&sandbox, now),
    };
    let resources = &sandbox.resources;
    let out = match sandbox.network.internet {
        true => "allowed",
        false => "none",
    };
    output::fields(&[
        ("id", sandbox.id.clone()),
        (
            "template",
            format!("{} (build {})", template(&sandbox), sandbox.build_id),
        ),
        ("state", state),
        ("sleeps", sleep::describe(&sandbox)),
        (
            "created",
            Timestamp::from_millis(sandbox.created_at).to_rfc3339(),
        ),
        ("ends in", deadline(&sandbox, now)),
        ("vCPUs", resources.cpu_count.to_string()),
        ("memory", output::bytes(resources.memory_bytes)),
        ("disk", output::bytes(resources.disk_bytes)),
        ("internet", out.to_owned()),
        ("volumes", volumes(&sandbox)),
        ("metadata", pairs(&sandbox.metadata)),
    ])?;
    Ok(0)
}

/// Tries all of them; what failed is told one by one.
async fn delete(ids: &[String], target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let results: Vec<(&String, Result<(), ClientError>)> = stream::iter(ids)
        .map(|id| {
            let request = client.delete(&["sandboxes", id]);
            let client = &client;
            async move { (id, client.send(request).await.map(drop)) }
        })
        .buffered(DELETES_AT_ONCE)
        .collect()
        .await;
    let mut deleted = Vec::new();
    let mut failed = Vec::new();
    for (id, result) in results {
        match result {
            Ok(()) => deleted.push(id),
            Err(error) => failed.push((id, error)),
        }
    }
    if target.json {
        output::json(&serde_json::json!({ "deleted": deleted }))?;
    }
    let Some((_, last)) = failed.pop() else {
        return Ok(0);
    };
    for (id, error) in failed {
        output::note(&format!("error: {id}: {error}"));
    }
    Err(last.into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{Cli, Command};

    fn parse(args: &[&str]) -> NewSandbox {
        let words = ["woodfrog", "sandbox", "create"].iter().chain(args);
        match Cli::try_parse_from(words).expect("parses").command {
            Command::Sandbox(SandboxCommand::Create(args)) => {
                new_sandbox(&args).expect("rules without files")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_become_a_request() {
        let plain = parse(&[]);
        assert_eq!(plain.template.as_deref(), Some("base"));
        assert_eq!((plain.timeout_seconds, plain.resources), (Some(3600), None));
        assert!(plain.network.internet);
        let full = parse(&[
            "web",
            "--timeout",
            "0",
            "-m",
            "a=b=c",
            "-e",
            "X=",
            "--no-internet",
            "--memory",
            "512MiB",
            "--volume",
            "data:/mnt/a:b",
        ]);
        assert_eq!(full.timeout_seconds, None);
        assert_eq!(full.metadata["a"], "b=c");
        assert_eq!(full.env["X"], "");
        assert!(!full.network.internet);
        let (name, path) = ("data".to_owned(), "/mnt/a:b".to_owned());
        assert_eq!(full.volumes, [VolumeMount { name, path }]);
        let resources = full.resources.expect("given");
        assert_eq!(resources.memory_bytes, Some(512 << 20));
        assert_eq!(resources.cpu_count, None);
    }

    #[test]
    fn a_filter_that_cannot_be_said_is_refused() {
        let pair = |v: &str| vec![("k".to_owned(), v.to_owned())];
        assert_eq!(filter("metadata", &pair("v")).expect("fine"), "k=v");
        assert!(filter("metadata", &pair("v,w")).is_err());
    }
}
