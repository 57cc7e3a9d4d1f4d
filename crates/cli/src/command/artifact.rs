//! `woodfrog artifact`.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use reqwest::{Method, Response};
use serde_json::json;
use woodfrog_types::Timestamp;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_wire::native::artifact::{Artifact, ReviewState};
use woodfrog_wire::native::page::Page;

use super::Outcome;
use crate::args::{ArtifactCommand, Review, Target};
use crate::client::Client;
use crate::output;

pub(super) async fn run(command: ArtifactCommand) -> Outcome {
    match command {
        ArtifactCommand::List {
            run,
            thread,
            review,
            limit,
            target,
        } => {
            let review = review.map(|review| review.as_str().to_owned());
            let wanted = [("run", run), ("thread", thread), ("review", review)];
            let query = wanted
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)));
            list(&query.collect::<Vec<_>>(), limit, &target).await
        }
        ArtifactCommand::Show { id, target } => {
            let client = Client::new(&target)?;
            let artifact: Artifact = client.json(client.get(&["artifacts", &id])).await?;
            show(&artifact, &target)
        }
        ArtifactCommand::Get { id, output, target } => {
            let client = Client::new(&target)?;
            let content = client
                .send(client.get(&["artifacts", &id, "content"]))
                .await?;
            match output {
                Some(path) => to_file(content, &path).await?,
                None => copy(content, &mut std::io::stdout().lock()).await?,
            }
            Ok(0)
        }
        ArtifactCommand::Approve { ids, target } => review(&ids, Review::Approved, &target).await,
        ArtifactCommand::Reject { ids, target } => review(&ids, Review::Rejected, &target).await,
        ArtifactCommand::Delete { ids, target } => {
            let client = Client::new(&target)?;
            for id in &ids {
                client.send(client.delete(&["artifacts", id])).await?;
            }
            Ok(0)
        }
    }
}

async fn list(query: &[(&str, String)], limit: usize, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let mut all: Vec<Artifact> = Vec::new();
    let mut cursor: Option<String> = None;
    while all.len() < limit {
        let mut url = client.route(&["artifacts"]);
        {
            let mut pairs = url.query_pairs_mut();
            let size = (limit - all.len()).min(PAGE_ITEMS_MAX);
            pairs.append_pair("limit", &size.to_string());
            pairs.extend_pairs(query);
            if let Some(cursor) = &cursor {
                pairs.append_pair("cursor", cursor);
            }
        }
        let page: Page<Artifact> = client.json(client.request(Method::GET, url)).await?;
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
    for artifact in &all {
        output::line(&line(artifact))?;
    }
    Ok(0)
}

fn line(artifact: &Artifact) -> String {
    let review = match artifact.review {
        ReviewState::Pending => "pending",
        ReviewState::Approved => "approved",
        ReviewState::Rejected => "rejected",
    };
    let Artifact { id, size, path, .. } = artifact;
    format!("{id}  {review:<8}  {size:>10}  {}", plain(path))
}

/// What a run called something must not steer the terminal.
fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(shown).collect()
}

fn show(artifact: &Artifact, target: &Target) -> Outcome {
    if target.json {
        output::json(artifact)?;
        return Ok(0);
    }
    output::line(&line(artifact))?;
    let created = Timestamp::from_millis(artifact.created_at).to_rfc3339();
    for (name, value) in [
        ("run", artifact.run.as_str()),
        ("thread", &artifact.thread),
        ("kind", &artifact.kind),
        ("type", &artifact.content_type),
        ("sha256", &artifact.sha256),
        ("created", &created),
        ("by", artifact.reviewed_by.as_deref().unwrap_or("-")),
    ] {
        output::line(&format!("  {name:<8} {}", plain(value)))?;
    }
    Ok(0)
}

/// Writes beside the file, and gives it its name when it is whole.
async fn to_file(content: Response, path: &Path) -> anyhow::Result<()> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let failed = || format!("write {}", path.display());
    let mut file = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    copy(content, &mut file).await?;
    file.persist(path).with_context(failed)?;
    Ok(())
}

async fn copy(mut content: Response, to: &mut impl Write) -> anyhow::Result<()> {
    while let Some(chunk) = content.chunk().await? {
        to.write_all(&chunk)?;
    }
    to.flush()?;
    Ok(())
}

async fn review(ids: &[String], review: Review, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    for id in ids {
        let request = client.post(&["artifacts", id, "review"]);
        let body = json!({"review": review.as_str()});
        let reviewed: Artifact = client.json(request.json(&body)).await?;
        match target.json {
            true => output::json(&reviewed)?,
            false => output::line(&line(&reviewed))?,
        }
    }
    Ok(0)
}
