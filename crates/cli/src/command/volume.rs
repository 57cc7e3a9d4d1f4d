//! `woodfrog volume`.

use woodfrog_types::Timestamp;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_wire::native::page::Page;
use woodfrog_wire::native::volume::{NewVolume, Volume};

use super::Outcome;
use crate::args::{Target, VolumeCommand};
use crate::client::Client;
use crate::output;

pub(super) async fn run(command: VolumeCommand) -> Outcome {
    match command {
        VolumeCommand::Create { name, size, target } => create(name, size, &target).await,
        VolumeCommand::List { limit, target } => list(limit, &target).await,
        VolumeCommand::Show { volume, target } => show(&volume, &target).await,
        VolumeCommand::Delete { volumes, target } => delete(&volumes, &target).await,
    }
}

async fn create(name: String, size_bytes: Option<u64>, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let new = NewVolume { name, size_bytes };
    let request = client.post(&["volumes"]).json(&new);
    let made: Volume = client.json(request).await?;
    if target.json {
        output::json(&made)?;
    } else {
        output::line(&made.id)?;
    }
    Ok(0)
}

async fn list(limit: usize, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let mut all: Vec<Volume> = Vec::new();
    let mut cursor: Option<String> = None;
    while all.len() < limit {
        let mut url = client.route(&["volumes"]);
        {
            let mut pairs = url.query_pairs_mut();
            let size = (limit - all.len()).min(PAGE_ITEMS_MAX);
            pairs.append_pair("limit", &size.to_string());
            if let Some(cursor) = &cursor {
                pairs.append_pair("cursor", cursor);
            }
        }
        let request = client.request(reqwest::Method::GET, url);
        let page: Page<Volume> = client.json(request).await?;
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
    let row = |volume: &Volume| {
        vec![
            volume.id.clone(),
            volume.name.clone(),
            amount(volume.size_bytes, "none"),
            amount(volume.used_bytes, "-"),
            Timestamp::from_millis(volume.created_at).to_rfc3339(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    output::table(&["ID", "NAME", "SIZE", "USED", "CREATED"], &rows)?;
    if cursor.is_some() {
        output::note(&format!(
            "there are more than {limit}; see them with --limit"
        ));
    }
    Ok(0)
}

async fn show(reference: &str, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let request = client.get(&["volumes", reference]);
    // Whoever looks at it need not see what opens it.
    let volume = Volume {
        token: None,
        ..client.json(request).await?
    };
    if target.json {
        output::json(&volume)?;
        return Ok(0);
    }
    output::fields(&[
        ("id", volume.id.clone()),
        ("name", volume.name.clone()),
        ("size", amount(volume.size_bytes, "no limit")),
        ("used", amount(volume.used_bytes, "not known")),
        (
            "created",
            Timestamp::from_millis(volume.created_at).to_rfc3339(),
        ),
    ])?;
    Ok(0)
}

fn amount(bytes: Option<u64>, none: &str) -> String {
    bytes.map_or_else(|| none.to_owned(), output::bytes)
}

/// Goes on after one that cannot be deleted, and ends with its error.
async fn delete(volumes: &[String], target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let mut gone = Vec::new();
    let mut last = None;
    for volume in volumes {
        match client.send(client.delete(&["volumes", volume])).await {
            Ok(_) => gone.push(volume),
            Err(error) => {
                if let Some(before) = last.replace(error) {
                    output::error(&before);
                }
            }
        }
    }
    if target.json {
        output::json(&serde_json::json!({ "deleted": gone }))?;
    }
    match last {
        None => Ok(0),
        Some(error) => Err(error.into()),
    }
}
