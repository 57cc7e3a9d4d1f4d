//! A sandbox's log: its events.

use axum::extract::State;
use axum::{Extension, Json};
use woodfrog_types::event::{Level, SandboxEvent};
use woodfrog_types::key::Principal;
use woodfrog_types::{Fault, SandboxId, Timestamp};
use woodfrog_wire::e2b::logs::{LogEntry, SandboxLogs, SandboxLogsV2};

use super::error::Result;
use super::extract::{InPath, Params};
use super::routes::Routes;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/sandboxes/{id}/logs", logs_v1)
        .get("/v2/sandboxes/{id}/logs", logs_v2)
}

/// Entries of one reply.
const LIMIT_MAX: usize = 1000;
/// Events that one request looks at.
const SCAN_MAX: usize = 20_000;
/// Events that are read at a time.
const BATCH: usize = 1000;

/// Which entries a request wants.
struct Wanted {
    limit: usize,
    from: Option<Timestamp>,
    until: Option<Timestamp>,
    level: Level,
    search: Option<String>,
}

impl Wanted {
    fn matches(&self, event: &SandboxEvent) -> bool {
        self.from.is_none_or(|from| event.at >= from)
            && self.until.is_none_or(|until| event.at <= until)
            && event.level >= self.level
            && self
                .search
                .as_ref()
                .is_none_or(|text| event.message.contains(text.as_str()))
    }
}

async fn logs_v1(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    params: Params,
) -> Result<Json<SandboxLogs>> {
    let wanted = wanted(&params, params.parse("start")?, None)?;
    let entries = forward(&app, &principal, &id, &wanted).await?;
    Ok(Json(entries.into()))
}

async fn logs_v2(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    params: Params,
) -> Result<Json<SandboxLogsV2>> {
    let cursor = params.parse("cursor")?;
    let logs = match params.get("direction") {
        None | Some("forward") => {
            let wanted = wanted(&params, cursor, None)?;
            forward(&app, &principal, &id, &wanted).await?
        }
        Some("backward") => {
            let mut wanted = wanted(&params, None, cursor)?;
            let limit = std::mem::replace(&mut wanted.limit, SCAN_MAX);
            let mut all = forward(&app, &principal, &id, &wanted).await?;
            all.reverse();
            all.truncate(limit);
            all
        }
        Some(_) => {
            let message = "direction must be `forward` or `backward`";
            return Err(Fault::invalid("direction", message).into());
        }
    };
    Ok(Json(SandboxLogsV2 { logs }))
}

/// Cursors are milliseconds since the epoch.
fn wanted(
    params: &Params,
    from: Option<i64>,
    until: Option<i64>,
) -> std::result::Result<Wanted, Fault> {
    let limit = params.parse::<usize>("limit")?.unwrap_or(LIMIT_MAX);
    if limit > LIMIT_MAX {
        let message = format!("limit must be at most {LIMIT_MAX}");
        return Err(Fault::invalid("limit", message));
    }
    let level = match params.get("level") {
        None | Some("debug") => Level::Debug,
        Some("info") => Level::Info,
        Some("warn") => Level::Warn,
        Some("error") => Level::Error,
        Some(_) => return Err(Fault::invalid("level", "unknown level")),
    };
    Ok(Wanted {
        limit,
        from: from.map(Timestamp::from_millis),
        until: until.map(Timestamp::from_millis),
        level,
        search: params.get("search").map(str::to_owned),
    })
}

async fn forward(
    app: &App,
    principal: &Principal,
    id: &SandboxId,
    wanted: &Wanted,
) -> std::result::Result<Vec<LogEntry>, Fault> {
    let mut found = Vec::new();
    let (mut after, mut seen) = (0, 0);
    loop {
        let batch = app
            .engine
            .sandbox_events(principal, id, after, BATCH)
            .await?;
        let Some(last) = batch.last() else {
            return Ok(found);
        };
        after = last.seq;
        seen += batch.len();
        for event in batch {
            if found.len() >= wanted.limit {
                return Ok(found);
            }
            if wanted.matches(&event) {
                found.push(event.into());
            }
        }
        if seen >= SCAN_MAX {
            return Ok(found);
        }
    }
}
