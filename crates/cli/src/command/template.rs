//! `woodfrog template`.

mod build;
mod context;
mod dockerfile;
mod import;
mod security;

use woodfrog_types::Timestamp;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_wire::native::page::Page;
use woodfrog_wire::native::template::{Build, LayersGone, Template};

use super::{Outcome, follow};
use crate::args::{Target, TemplateCommand};
use crate::client::Client;
use crate::output;

pub(super) async fn run(command: TemplateCommand) -> Outcome {
    match command {
        TemplateCommand::List { limit, target } => list(limit, &target).await,
        TemplateCommand::Prepare { name, target } => prepare(&name, &target).await,
        TemplateCommand::Gc { target } => gc(&target).await,
        TemplateCommand::Delete { name, target } => {
            let client = Client::new(&target)?;
            client.send(client.delete(&["templates", &name])).await?;
            if target.json {
                output::json(&serde_json::json!({ "deleted": name }))?;
            }
            Ok(0)
        }
        TemplateCommand::Security {
            name,
            allow,
            runtime,
            target,
        } => security::run(&name, &allow, runtime, &target).await,
        TemplateCommand::Build(args) => build::run(args).await,
        TemplateCommand::Import {
            name,
            source,
            registry_user,
            target,
        } => import::run(&name, &source, registry_user, &target).await,
    }
}

async fn list(limit: usize, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let mut all: Vec<Template> = Vec::new();
    let mut cursor: Option<String> = None;
    while all.len() < limit {
        let mut url = client.route(&["templates"]);
        {
            let mut query = url.query_pairs_mut();
            let size = (limit - all.len()).min(PAGE_ITEMS_MAX);
            query.append_pair("limit", &size.to_string());
            if let Some(cursor) = &cursor {
                query.append_pair("cursor", cursor);
            }
        }
        let request = client.request(reqwest::Method::GET, url);
        let page: Page<Template> = client.json(request).await?;
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
    let headings = ["NAME", "ID", "STATUS", "TAGS", "CPUS", "MEMORY", "UPDATED"];
    output::table(&headings, &rows)?;
    if cursor.is_some() {
        output::note(&format!(
            "there are more than {limit}; see them with --limit"
        ));
    }
    Ok(0)
}

fn row(template: &Template) -> Vec<String> {
    let status = template.current.as_ref().map_or("-", |build| &build.status);
    let tags: Vec<&str> = template.tags.keys().map(String::as_str).collect();
    vec![
        template.name.clone(),
        template.id.clone(),
        status.to_owned(),
        tags.join(","),
        template.resources.cpu_count.to_string(),
        output::bytes(template.resources.memory_bytes),
        Timestamp::from_millis(template.updated_at).to_rfc3339(),
    ]
}

async fn gc(target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let spinner = output::spinner(target, "collecting".to_owned());
    let gone: LayersGone = client.json(client.post(&["layers", "gc"])).await?;
    drop(spinner);
    if target.json {
        output::json(&gone)?;
    } else {
        let (bytes, cached) = (output::bytes(gone.bytes), output::bytes(gone.cached_bytes));
        output::line(&format!("removed {} layers, {bytes}", gone.layers))?;
        output::line(&format!("{cached} are kept for builds"))?;
    }
    Ok(0)
}

async fn prepare(name: &str, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let request = client.post(&["templates", name, "prepare"]);
    let build: Build = client.json(request).await?;
    let build = follow::follow(&client, build).await?;
    follow::conclude(name, &build, target)
}
