//! `woodfrog session`.

use reqwest::Method;
use serde_json::{Value, json};
use woodfrog_types::Timestamp;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_wire::native::page::Page;
use woodfrog_wire::native::session::{Session, SessionDetail};

use super::Outcome;
use crate::args::{SessionCommand, Target};
use crate::client::Client;
use crate::output;

mod log;
mod prompt;
mod retention;

pub(super) async fn run(command: SessionCommand) -> Outcome {
    match command {
        SessionCommand::Create {
            agent,
            sandbox,
            template,
            name,
            cwd,
            allow_all,
            keep_turns,
            target,
        } => {
            let body = json!({
                "agent": agent,
                "sandbox": sandbox,
                "template": template,
                "name": name,
                "cwd": cwd,
                "permissions": if allow_all { "bypass" } else { "ask" },
                "snapshots": if keep_turns { "turn" } else { "none" },
            });
            create(&body, &target).await
        }
        SessionCommand::List {
            sandbox,
            agent,
            limit,
            target,
        } => {
            let mut query = Vec::new();
            query.extend(sandbox.map(|sandbox| ("sandbox", sandbox)));
            query.extend(agent.map(|agent| ("agent", agent)));
            list(&query, limit, &target).await
        }
        SessionCommand::Show { id, target } => show(&id, &target).await,
        SessionCommand::Prompt {
            id,
            text,
            author,
            target,
        } => prompt::run(&id, &text, author.as_deref(), &target).await,
        SessionCommand::Answer {
            id,
            request,
            option,
            author,
            target,
        } => {
            let body = json!({"id": request, "option": option, "author": author});
            act(&id, "answer", &body, &target).await
        }
        SessionCommand::Cancel { id, target } => act(&id, "cancel", &json!({}), &target).await,
        SessionCommand::Events {
            id,
            after,
            follow,
            target,
        } => log::events(&id, after, follow, &target).await,
        SessionCommand::Export { id, all: _, target } => log::export(id.as_deref(), &target).await,
        SessionCommand::Turns { id, target } => log::turns(&id, &target).await,
        SessionCommand::Rewind { id, turn, target } => {
            back(&id, "rewind", &json!({"turn": turn}), &target).await
        }
        SessionCommand::Fork {
            id,
            turn,
            name,
            target,
        } => back(&id, "fork", &json!({"turn": turn, "name": name}), &target).await,
        SessionCommand::Retention {
            ended,
            age,
            entries,
            reset,
            target,
        } => retention::run(ended, age, entries, reset, &target).await,
        SessionCommand::End { ids, target } => {
            for id in &ids {
                act(id, "end", &json!({}), &target).await?;
            }
            Ok(0)
        }
        SessionCommand::Delete { ids, target } => delete(&ids, &target).await,
    }
}

async fn create(body: &Value, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let request = client.request(Method::POST, client.route(&["sessions"]));
    let session: Session = client.json(request.json(body)).await?;
    if target.json {
        output::json(&session)?;
    } else {
        output::line(&session.id)?;
    }
    Ok(0)
}

async fn list(query: &[(&str, String)], limit: usize, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let mut all: Vec<Session> = Vec::new();
    let mut cursor: Option<String> = None;
    while all.len() < limit {
        let mut url = client.route(&["sessions"]);
        {
            let mut pairs = url.query_pairs_mut();
            let size = (limit - all.len()).min(PAGE_ITEMS_MAX);
            pairs.append_pair("limit", &size.to_string());
            pairs.extend_pairs(query);
            if let Some(cursor) = &cursor {
                pairs.append_pair("cursor", cursor);
            }
        }
        let request = client.request(Method::GET, url);
        let page: Page<Session> = client.json(request).await?;
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
    let row = |session: &Session| {
        vec![
            session.id.clone(),
            session.agent.clone(),
            session.state.clone(),
            session.sandbox.clone(),
            output::span(now.since(Timestamp::from_millis(session.created_at))),
            session.name.clone(),
        ]
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    output::table(&["ID", "AGENT", "STATE", "SANDBOX", "AGE", "NAME"], &rows)?;
    if cursor.is_some() {
        output::note(&format!(
            "there are more than {limit}; see them with --limit"
        ));
    }
    Ok(0)
}

async fn show(id: &str, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let detail: SessionDetail = client.json(client.get(&["sessions", id])).await?;
    if target.json {
        output::json(&detail)?;
        return Ok(0);
    }
    let session = &detail.session;
    let doing = match (detail.running, detail.busy) {
        (_, true) => "busy",
        (true, false) => "waiting for a prompt",
        (false, false) => "not running",
    };
    output::fields(&[
        ("id", session.id.clone()),
        ("name", session.name.clone()),
        ("agent", format!("{} ({doing})", session.agent)),
        ("state", session.state.clone()),
        ("sandbox", session.sandbox.clone()),
        ("log", format!("{} to {}", detail.earliest, detail.last)),
        (
            "created",
            Timestamp::from_millis(session.created_at).to_rfc3339(),
        ),
    ])?;
    for asked in &detail.asked {
        output::line(&format!(
            "asked {}: {}",
            asked.id,
            prompt::question(&asked.params)
        ))?;
    }
    Ok(0)
}

async fn act(id: &str, what: &str, body: &Value, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let request = client.request(Method::POST, client.route(&["sessions", id, what]));
    client.send(request.json(body)).await?;
    Ok(0)
}

/// Prints the sandbox of a rewound session, and the id of a forked one.
async fn back(id: &str, what: &str, body: &Value, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let request = client.request(Method::POST, client.route(&["sessions", id, what]));
    let session: Session = client.json(request.json(body)).await?;
    match (target.json, what) {
        (true, _) => output::json(&session)?,
        (false, "rewind") => output::line(&session.sandbox)?,
        (false, _) => output::line(&session.id)?,
    }
    Ok(0)
}

async fn delete(ids: &[String], target: &Target) -> Outcome {
    let client = Client::new(target)?;
    for id in ids {
        let request = client.request(Method::DELETE, client.route(&["sessions", id]));
        client.send(request).await?;
    }
    Ok(0)
}
