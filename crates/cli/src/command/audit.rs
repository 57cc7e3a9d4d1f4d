//! `woodfrog audit`.

use std::io::Write as _;

use reqwest::{Method, RequestBuilder};
use woodfrog_types::Timestamp;
use woodfrog_wire::native::audit::{AuditCheck, AuditEntry, AuditPage, AuditReport};

use super::{EXIT_FAILURE, Outcome};
use crate::args::{AuditCommand, AuditFilterArgs, AuditPeriodArgs};
use crate::client::Client;
use crate::output;

/// The log of the workspace that the flags or the key say.
const AUDIT: [&str; 3] = ["workspaces", "current", "audit"];
/// Entries of one page.
const PAGE: usize = 100;

pub(super) async fn run(command: AuditCommand) -> Outcome {
    match command {
        AuditCommand::List {
            filter,
            limit,
            target,
        } => {
            let items = list(&Client::new(&target)?, &filter, limit).await?;
            if target.json {
                output::json(&items)?;
            } else {
                let rows: Vec<Vec<String>> = items.iter().map(row).collect();
                let headings = ["NO", "AT", "ACTOR", "ACTION", "TARGET", "OUTCOME", "DETAIL"];
                output::table(&headings, &rows)?;
            }
        }
        AuditCommand::Verify { target } => {
            let client = Client::new(&target)?;
            let check: AuditCheck = client.json(client.get(&part("verify"))).await?;
            if target.json {
                output::json(&check)?;
            } else {
                let state = check.flaw.clone().unwrap_or_else(|| "intact".to_owned());
                output::fields(&[
                    ("log", state),
                    ("entries", check.entries.to_string()),
                    ("places", format!("{} to {}", check.first, check.last)),
                    ("head", check.head.clone()),
                ])?;
            }
            if !check.intact {
                return Ok(EXIT_FAILURE);
            }
        }
        AuditCommand::Export {
            format,
            filter,
            target,
        } => {
            let client = Client::new(&target)?;
            let mut query = pairs(&filter);
            query.push(("format", format));
            let request = asked(&client, &part("export"), &query);
            let mut answer = client.upload(request).await?;
            let mut out = std::io::stdout().lock();
            while let Some(chunk) = answer.chunk().await? {
                out.write_all(&chunk)?;
            }
        }
        AuditCommand::Report { period, target } => {
            let client = Client::new(&target)?;
            let request = asked(&client, &part("report"), &times(&period));
            let report: AuditReport = client.json(request).await?;
            if target.json {
                output::json(&report)?;
            } else {
                let row = |row: &woodfrog_wire::native::audit::AuditReportRow| {
                    vec![
                        row.action.clone(),
                        row.actor.clone(),
                        row.outcome.clone(),
                        row.count.to_string(),
                    ]
                };
                let rows: Vec<Vec<String>> = report.rows.iter().map(row).collect();
                output::table(&["ACTION", "ACTOR", "OUTCOME", "COUNT"], &rows)?;
                output::line(&format!("total: {}", report.total))?;
            }
        }
    }
    Ok(0)
}

fn part(last: &'static str) -> [&'static str; 4] {
    let [workspaces, current, audit] = AUDIT;
    [workspaces, current, audit, last]
}

async fn list(
    client: &Client,
    filter: &AuditFilterArgs,
    limit: usize,
) -> anyhow::Result<Vec<AuditEntry>> {
    let mut items: Vec<AuditEntry> = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let mut query = pairs(filter);
        let left = limit.saturating_sub(items.len());
        query.push(("limit", left.clamp(1, PAGE).to_string()));
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page: AuditPage = client.json(asked(client, &AUDIT, &query)).await?;
        items.extend(page.items);
        cursor = page.next;
        if cursor.is_none() || items.len() >= limit {
            items.truncate(limit);
            return Ok(items);
        }
    }
}

/// A GET request with a query.
fn asked(client: &Client, path: &[&str], query: &[(&'static str, String)]) -> RequestBuilder {
    let mut url = client.route(path);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    client.request(Method::GET, url)
}

fn pairs(filter: &AuditFilterArgs) -> Vec<(&'static str, String)> {
    let texts = [
        ("actor", &filter.actor),
        ("action", &filter.action),
        ("target", &filter.on),
        ("outcome", &filter.outcome),
    ];
    let texts = texts.into_iter();
    let given = texts.filter_map(|(name, value)| Some((name, value.clone()?)));
    given.chain(times(&filter.period)).collect()
}

fn times(period: &AuditPeriodArgs) -> Vec<(&'static str, String)> {
    let times = [("from", period.from), ("until", period.until)];
    let given = times.into_iter();
    given
        .filter_map(|(name, value)| Some((name, value?.to_string())))
        .collect()
}

fn row(entry: &AuditEntry) -> Vec<String> {
    vec![
        entry.sequence.to_string(),
        Timestamp::from_millis(entry.at).to_rfc3339(),
        entry.actor.clone(),
        entry.action.clone(),
        entry.target.clone(),
        entry.outcome.clone(),
        entry.detail.clone(),
    ]
}
