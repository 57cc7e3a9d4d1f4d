//! From what the store noted to what webhooks are told.

use serde_json::{Value, json};
use woodfrog_store::Store;
use woodfrog_types::run::{Outcome, Run, RunState};
use woodfrog_types::webhook::{Happening, WebhookEvent};
use woodfrog_types::{Fault, RunId, SandboxId, SessionId};

use crate::fault;

/// Passes on at most `limit` things that happened; returns how many.
pub(crate) async fn pass_on(store: &dyn Store, limit: usize) -> Result<usize, Fault> {
    let noted = store.happening_list(limit).await.map_err(fault::store)?;
    if noted.is_empty() {
        return Ok(0);
    }
    let mut events = Vec::with_capacity(noted.len());
    for happening in &noted {
        events.push(event(store, happening).await?);
    }
    let numbers = noted.iter().map(|one| one.number).collect();
    let published = store.happening_publish(numbers, events).await;
    published.map_err(fault::store)?;
    Ok(noted.len())
}

/// The same thing has the same id.
async fn event(store: &dyn Store, happening: &Happening) -> Result<WebhookEvent, Fault> {
    let (group, _) = happening.kind.split_once('.').unwrap_or_default();
    let data = match group {
        "run" => run(store, happening).await?,
        "session" => session(store, happening).await?,
        _ => sandbox(store, happening).await?,
    };
    Ok(WebhookEvent {
        id: format!("{group}/{}/{}", happening.subject, happening.place),
        workspace: happening.workspace.clone(),
        kind: happening.kind.clone(),
        at: happening.at,
        data: data.to_string(),
    })
}

async fn run(store: &dyn Store, happening: &Happening) -> Result<Value, Fault> {
    let mut data = json!({ "run": happening.subject });
    let Ok(id) = happening.subject.parse::<RunId>() else {
        return Ok(data);
    };
    if let Some(run) = store.run_fetch(&id).await.map_err(fault::store)? {
        data["thread"] = run.thread.as_str().into();
        data["created_by"] = run.created_by.as_str().into();
        data["agent"] = run.work.agent().into();
        data["sandbox"] = run.sandbox.as_ref().map(SandboxId::as_str).into();
        data["session"] = run.session.as_ref().map(SessionId::as_str).into();
        if happening.kind == format!("run.{}", run.state.as_str()) {
            ended(&mut data, &run);
        }
    }
    Ok(data)
}

fn ended(data: &mut Value, run: &Run) {
    let RunState::Ended { since, at, outcome } = &run.state else {
        return;
    };
    let took = since.map(|since| u64::try_from(at.since(since).as_millis()).unwrap_or(u64::MAX));
    data["duration_ms"] = took.into();
    data["tokens"] = json!({
        "input": run.tokens.input,
        "output": run.tokens.output,
        "cache_read": run.tokens.cache_read,
        "cache_write": run.tokens.cache_write,
    });
    data["cost_micros"] = run.cost.total().into();
    match outcome {
        Outcome::Succeeded => {}
        Outcome::Failed(error) => {
            data["error"] = json!({
                "category": error.category.as_str(),
                "code": error.code,
                "message": error.message,
            });
        }
        Outcome::Canceled { by, reason } => {
            data["canceled_by"] = by.as_ref().map(|by| by.as_str()).into();
            data["reason"] = reason.as_str().into();
        }
    }
}

async fn session(store: &dyn Store, happening: &Happening) -> Result<Value, Fault> {
    let mut data = json!({ "session": happening.subject });
    let Ok(id) = happening.subject.parse::<SessionId>() else {
        return Ok(data);
    };
    if let Some(session) = store.session_fetch(&id).await.map_err(fault::store)? {
        data["sandbox"] = session.sandbox.as_str().into();
        data["agent"] = session.agent.as_str().into();
    }
    Ok(data)
}

async fn sandbox(store: &dyn Store, happening: &Happening) -> Result<Value, Fault> {
    let mut data = json!({ "sandbox": happening.subject, "sequence": happening.place });
    let Ok(id) = happening.subject.parse::<SandboxId>() else {
        return Ok(data);
    };
    let before = happening.place.saturating_sub(1);
    let found = store.event_list(&id, before, 1).await;
    let found = found.map_err(fault::store)?;
    if let Some(event) = found.first().filter(|event| event.seq == happening.place) {
        data["message"] = event.message.as_str().into();
        data["fields"] = json!(event.fields);
    }
    Ok(data)
}
