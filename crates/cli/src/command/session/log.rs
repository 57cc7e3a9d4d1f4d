//! The log of a session, printed.

use std::io::Write as _;

use reqwest::Method;
use reqwest::header::ACCEPT;
use serde_json::Value;
use woodfrog_wire::native::session::{SessionEvent, SessionEvents, Turn, Turns};

use super::{Client, Outcome, Target, output};
use crate::client::{ClientError, Lines};

/// Entries of one request.
const PAGE: usize = 1000;

pub(super) async fn events(id: &str, after: u64, follow: bool, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    if follow {
        let mut stream = Followed::open(&client, id, after).await?;
        while let Some(event) = stream.next().await? {
            print(&event, target)?;
        }
        return Ok(0);
    }
    let mut after = after;
    loop {
        let mut url = client.route(&["sessions", id, "events"]);
        url.query_pairs_mut()
            .append_pair("after", &after.to_string())
            .append_pair("limit", &PAGE.to_string());
        let page: SessionEvents = client.json(client.request(Method::GET, url)).await?;
        for event in &page.items {
            print(event, target)?;
        }
        match page.items.last() {
            Some(last) if last.sequence < page.last => after = last.sequence,
            _ => return Ok(0),
        }
    }
}

/// The turns, all of them.
pub(super) async fn turns(id: &str, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let mut all: Vec<Turn> = Vec::new();
    loop {
        let mut url = client.route(&["sessions", id, "turns"]);
        let after = all.last().map_or(0, |turn| turn.number);
        url.query_pairs_mut()
            .append_pair("after", &after.to_string())
            .append_pair("limit", &PAGE.to_string());
        let page: Turns = client.json(client.request(Method::GET, url)).await?;
        let full = page.items.len() == PAGE;
        all.extend(page.items);
        if !full {
            break;
        }
    }
    if target.json {
        output::json(&all)?;
        return Ok(0);
    }
    let row = |turn: &Turn| {
        vec![
            turn.number.to_string(),
            turn.outcome.clone().unwrap_or_else(|| "goes on".to_owned()),
            turn.first.to_string(),
            turn.last.map_or_else(String::new, |last| last.to_string()),
            turn.author.clone().unwrap_or_default(),
            turn.snapshot.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    output::table(
        &["TURN", "OUTCOME", "FIRST", "LAST", "AUTHOR", "SNAPSHOT"],
        &rows,
    )?;
    Ok(0)
}

/// One session's log, or all of them.
pub(super) async fn export(id: Option<&str>, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let request = match id {
        Some(id) => client.get(&["sessions", id, "export"]),
        None => client.get(&["session-export"]),
    };
    let mut response = client.send(request).await?;
    let mut out = std::io::stdout().lock();
    while let Some(chunk) = response.chunk().await.map_err(ClientError::Broken)? {
        out.write_all(&chunk)?;
    }
    Ok(0)
}

fn print(event: &SessionEvent, target: &Target) -> std::io::Result<()> {
    if target.json {
        return output::line(&serde_json::to_string(event)?);
    }
    let method = event.payload.get("method").and_then(Value::as_str);
    let what = method.unwrap_or(&event.kind);
    let by = event.author.as_deref().unwrap_or(&event.source);
    output::line(&format!(
        "{:>6}  {by:<8} {what}  {}",
        event.sequence, event.payload
    ))
}

/// Entries as they come.
pub(super) struct Followed(Lines);

impl Followed {
    pub(super) async fn open(client: &Client, id: &str, after: u64) -> Result<Self, ClientError> {
        let mut url = client.route(&["sessions", id, "events"]);
        url.query_pairs_mut()
            .append_pair("after", &after.to_string());
        let request = client.request(Method::GET, url);
        let response = client
            .send(request.header(ACCEPT, "text/event-stream"))
            .await?;
        Ok(Self(Lines::new(response)))
    }

    /// The next entry of the log; what is not of the log is passed over.
    pub(super) async fn next(&mut self) -> Result<Option<SessionEvent>, ClientError> {
        while let Some(data) = self.0.data().await? {
            if let Ok(event) = serde_json::from_slice(&data) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }
}
