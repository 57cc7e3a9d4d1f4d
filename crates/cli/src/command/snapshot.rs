//! `woodfrog snapshot`.

use std::collections::BTreeMap;

use woodfrog_types::Timestamp;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_wire::native::page::Page;
use woodfrog_wire::native::sleep::Content;
use woodfrog_wire::native::snapshot::{GcReport, SetLabels, Snapshot};

use super::{Outcome, Usage, sandbox};
use crate::args::{SnapshotCommand, Target};
use crate::client::{Client, ClientError};
use crate::output;

pub(super) async fn run(command: SnapshotCommand) -> Outcome {
    match command {
        SnapshotCommand::List {
            source,
            labels,
            all,
            limit,
            target,
        } => {
            let mut query = Vec::new();
            query.extend(source.map(|source| ("source", source)));
            query.extend(all.then(|| ("internal", "true".to_owned())));
            let labels = sandbox::filter("labels", &labels)?;
            query.extend(Some(("labels", labels)).filter(|(_, text)| !text.is_empty()));
            list(&query, limit, &target).await
        }
        SnapshotCommand::Show { snapshot, target } => show(&snapshot, &target).await,
        SnapshotCommand::Delete { snapshots, target } => delete(&snapshots, &target).await,
        SnapshotCommand::Label {
            snapshot,
            set,
            remove,
            target,
        } => label(&snapshot, set, remove, &target).await,
        SnapshotCommand::Verify { snapshot, target } => verify(&snapshot, &target).await,
        SnapshotCommand::Gc { target } => gc(&target).await,
    }
}

async fn list(query: &[(&str, String)], limit: usize, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let mut all: Vec<Snapshot> = Vec::new();
    let mut cursor: Option<String> = None;
    while all.len() < limit {
        let mut url = client.route(&["snapshots"]);
        {
            let mut pairs = url.query_pairs_mut();
            let size = (limit - all.len()).min(PAGE_ITEMS_MAX);
            pairs.append_pair("limit", &size.to_string());
            pairs.extend_pairs(query);
            if let Some(cursor) = &cursor {
                pairs.append_pair("cursor", cursor);
            }
        }
        let request = client.request(reqwest::Method::GET, url);
        let page: Page<Snapshot> = client.json(request).await?;
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
    let now = Timestamp::now();
    let rows: Vec<Vec<String>> = all.iter().map(|snapshot| row(snapshot, now)).collect();
    let headings = [
        "ID", "NAME", "SOURCE", "CONTENT", "STATE", "MEMORY", "AGE", "LABELS",
    ];
    output::table(&headings, &rows)?;
    if cursor.is_some() {
        output::note(&format!(
            "there are more than {limit}; see them with --limit"
        ));
    }
    Ok(0)
}

fn row(snapshot: &Snapshot, now: Timestamp) -> Vec<String> {
    vec![
        snapshot.id.clone(),
        snapshot.name.clone().unwrap_or_else(|| "-".to_owned()),
        snapshot.source.clone(),
        content(snapshot.content).to_owned(),
        snapshot.state.clone(),
        output::bytes(snapshot.size.memory_bytes),
        output::span(now.since(Timestamp::from_millis(snapshot.created_at))),
        sandbox::pairs(&snapshot.labels),
    ]
}

const fn content(content: Content) -> &'static str {
    match content {
        Content::Memory => "memory",
        Content::Filesystem => "filesystem",
    }
}

async fn show(reference: &str, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let snapshot = client.json(client.get(&["snapshots", reference])).await?;
    print(&snapshot, target)
}

fn print(snapshot: &Snapshot, target: &Target) -> Outcome {
    if target.json {
        output::json(snapshot)?;
        return Ok(0);
    }
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let state = match &snapshot.damage {
        Some(damage) => format!("{}: {damage}", snapshot.state),
        None => snapshot.state.clone(),
    };
    let size = &snapshot.size;
    output::fields(&[
        ("id", snapshot.id.clone()),
        ("name", or_dash(&snapshot.name)),
        ("source", snapshot.source.clone()),
        ("content", content(snapshot.content).to_owned()),
        ("purpose", snapshot.purpose.clone()),
        ("state", state),
        ("place", snapshot.place.clone()),
        ("template", or_dash(&snapshot.template)),
        (
            "memory",
            format!(
                "{} ({} written)",
                output::bytes(size.memory_bytes),
                output::bytes(size.written_bytes)
            ),
        ),
        ("files", output::bytes(size.disk_bytes)),
        (
            "created",
            Timestamp::from_millis(snapshot.created_at).to_rfc3339(),
        ),
        ("labels", sandbox::pairs(&snapshot.labels)),
    ])?;
    Ok(0)
}

/// Tries all of them; what failed is told one by one.
async fn delete(references: &[String], target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let mut deleted = Vec::new();
    let mut failed: Vec<(&String, ClientError)> = Vec::new();
    for reference in references {
        match client.send(client.delete(&["snapshots", reference])).await {
            Ok(_) => deleted.push(reference),
            Err(error) => failed.push((reference, error)),
        }
    }
    if target.json {
        output::json(&serde_json::json!({ "deleted": deleted }))?;
    }
    let Some((_, last)) = failed.pop() else {
        return Ok(0);
    };
    for (reference, error) in failed {
        output::note(&format!("error: {reference}: {error}"));
    }
    Err(last.into())
}

async fn label(
    reference: &str,
    set: Vec<(String, String)>,
    remove: Vec<String>,
    target: &Target,
) -> Outcome {
    let mut labels: BTreeMap<String, Option<String>> = BTreeMap::new();
    labels.extend(remove.into_iter().map(|key| (key, None)));
    labels.extend(set.into_iter().map(|(key, value)| (key, Some(value))));
    if labels.is_empty() {
        return Err(Usage("say which labels: KEY=VALUE, --remove KEY".into()).into());
    }
    let client = Client::new(target)?;
    let url = client.route(&["snapshots", reference, "labels"]);
    let request = client.request(reqwest::Method::PATCH, url);
    let labeled = client.json(request.json(&SetLabels { labels })).await?;
    print(&labeled, target)
}

async fn verify(reference: &str, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let spinner = output::spinner(target, format!("reading {reference}"));
    let request = client.post(&["snapshots", reference, "verify"]);
    let checked: Snapshot = client.json(request).await?;
    drop(spinner);
    if target.json {
        output::json(&checked)?;
    }
    match &checked.damage {
        None => {
            if !target.json {
                output::line(&format!("{} is what was written", checked.id))?;
            }
            Ok(0)
        }
        Some(damage) => {
            output::note(&format!("error: {} is damaged: {damage}", checked.id));
            Ok(super::EXIT_FAILURE)
        }
    }
}

async fn gc(target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let spinner = output::spinner(target, "collecting".to_owned());
    let report: GcReport = client.json(client.post(&["snapshots", "gc"])).await?;
    drop(spinner);
    if target.json {
        output::json(&report)?;
    } else {
        let (count, bytes) = (report.removed.len(), output::bytes(report.bytes));
        output::line(&format!("removed {count} snapshots, {bytes}"))?;
        if report.archive_bytes > 0 {
            let bytes = output::bytes(report.archive_bytes);
            output::line(&format!("removed {bytes} from the archive"))?;
        }
    }
    Ok(0)
}
