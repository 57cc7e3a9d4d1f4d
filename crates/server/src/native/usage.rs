//! What the workspace used, and what its runs came to.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_billing::{Period, Usage};
use woodfrog_types::analytics::{GroupBy, RunQuery};
use woodfrog_types::key::Principal;
use woodfrog_types::usage::UsageTotals;
use woodfrog_types::{Fault, Timestamp, WorkspaceId};
use woodfrog_wire::native::billing::{
    RunAnalytics, RunAnalyticsQuery, ToolUse, Tools, UsageEntry, UsageQuery, UsageRow, UsageShow,
};
use woodfrog_wire::native::problem::Problem;

use super::extract::Params;
use super::problem::Result;
use crate::state::App;

/// A day.
const DAY_MS: i64 = 86_400_000;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(export))
        .routes(routes!(runs))
        .routes(routes!(tools))
}

/// What the workspace used in a month or another time: sums by day, model, user, thread or agent.
#[utoipa::path(
    get, path = "/usage", operation_id = "usage_show", tag = "usage", params(UsageQuery),
    responses((status = 200, body = UsageShow), (status = "default", body = Problem))
)]
async fn show(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<UsageQuery>,
) -> Result<Json<UsageShow>> {
    let period = period(&query)?;
    let by = group(query.by.as_deref())?.unwrap_or(GroupBy::Day);
    let sums = app.billing.usage.sums(&principal.workspace, period, by);
    let sums = sums.await?;
    let mut total = UsageTotals::default();
    for (_, row) in &sums {
        total.plus(row);
    }
    let rows = sums
        .iter()
        .map(|(name, row)| UsageRow::new(name.clone(), row));
    Ok(Json(UsageShow {
        workspace: principal.workspace.to_string(),
        from: period.from.as_millis(),
        until: period.until.as_millis(),
        by: by.as_str().to_owned(),
        rows: rows.collect(),
        total: UsageRow::new(None, &total),
    }))
}

/// The workspace's entries of a month or another time, oldest first: JSON lines or CSV.
#[utoipa::path(
    get, path = "/usage/export", operation_id = "usage_export", tag = "usage",
    params(UsageQuery),
    responses(
        (status = 200, description = "a line for each entry", content(
            (UsageEntry = "application/x-ndjson"), (String = "text/csv"))),
        (status = "default", body = Problem)
    )
)]
async fn export(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<UsageQuery>,
) -> Result<Response> {
    let period = period(&query)?;
    let form = match query.format.as_deref() {
        None | Some("jsonl") => Form::Lines,
        Some("csv") => Form::Csv,
        Some(_) => return Err(Fault::invalid("format", "format is `jsonl` or `csv`").into()),
    };
    let export = Export {
        usage: app.billing.usage.clone(),
        workspace: principal.workspace,
        period,
        form,
        next: Next::Head,
    };
    // A failure in the middle breaks the body off: who reads it sees that it is not whole.
    let pieces = stream::try_unfold(export, Export::piece);
    let mut response = Response::new(Body::from_stream(pieces));
    let kind = match form {
        Form::Lines => HeaderValue::from_static("application/x-ndjson"),
        Form::Csv => HeaderValue::from_static("text/csv; charset=utf-8; header=present"),
    };
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Lines,
    Csv,
}

enum Next {
    Head,
    Page(Option<String>),
    End,
}

/// An export under way: one page of the books is in memory.
struct Export {
    usage: Usage,
    workspace: WorkspaceId,
    period: Period,
    form: Form,
    next: Next,
}

impl Export {
    async fn piece(mut self) -> std::result::Result<Option<(Bytes, Self)>, Fault> {
        let cursor = match std::mem::replace(&mut self.next, Next::End) {
            Next::End => return Ok(None),
            Next::Head => {
                self.next = Next::Page(None);
                let head = match self.form {
                    Form::Csv => UsageEntry::CSV_HEAD,
                    Form::Lines => "",
                };
                return Ok(Some((Bytes::from_static(head.as_bytes()), self)));
            }
            Next::Page(cursor) => cursor,
        };
        let page = self
            .usage
            .page(&self.workspace, self.period, cursor)
            .await?;
        let mut text = String::new();
        for entry in &page.items {
            let entry = UsageEntry::from(entry);
            match self.form {
                Form::Csv => text.push_str(&entry.csv()),
                Form::Lines => {
                    let line = serde_json::to_string(&entry);
                    text.push_str(&line.map_err(|error| Fault::internal(error.to_string()))?);
                    text.push('\n');
                }
            }
        }
        if page.next.is_some() {
            self.next = Next::Page(page.next);
        }
        Ok(Some((Bytes::from(text), self)))
    }
}

/// What the workspace's runs came to: sums, durations, trend, errors, and groups if asked.
#[utoipa::path(
    get, path = "/usage/runs", operation_id = "usage_runs", tag = "usage",
    params(RunAnalyticsQuery),
    responses((status = 200, body = RunAnalytics), (status = "default", body = Problem))
)]
async fn runs(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<RunAnalyticsQuery>,
) -> Result<Json<RunAnalytics>> {
    let query = run_query(query)?;
    let report = app.billing.usage.runs(&principal.workspace, &query).await?;
    Ok(Json(RunAnalytics::new(&query, report)))
}

/// The tools that the workspace's runs called.
#[utoipa::path(
    get, path = "/usage/tools", operation_id = "usage_tools", tag = "usage",
    params(RunAnalyticsQuery),
    responses((status = 200, body = Tools), (status = "default", body = Problem))
)]
async fn tools(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<RunAnalyticsQuery>,
) -> Result<Json<Tools>> {
    let query = run_query(query)?;
    let tools = app
        .billing
        .usage
        .tools(&principal.workspace, &query)
        .await?;
    let items = tools.into_iter().map(ToolUse::from).collect();
    Ok(Json(Tools { items }))
}

fn period(query: &UsageQuery) -> std::result::Result<Period, Fault> {
    let now = Timestamp::now();
    Period::parse(query.month.as_deref(), query.from, query.until, now)
}

fn run_query(query: RunAnalyticsQuery) -> std::result::Result<RunQuery, Fault> {
    let now = Timestamp::now();
    let period = Period::parse(query.month.as_deref(), query.from, query.until, now)?;
    Ok(RunQuery {
        from: period.from,
        until: period.until,
        bucket: query.bucket_ms.unwrap_or(DAY_MS),
        by: group(query.by.as_deref())?,
        thread: query.thread,
        agent: query.agent,
        model: query.model,
        user: query.user,
    })
}

fn group(name: Option<&str>) -> std::result::Result<Option<GroupBy>, Fault> {
    let known = |name: &str| {
        let found = GroupBy::ALL.into_iter().find(|by| by.as_str() == name);
        let text = "by is `day`, `model`, `user`, `thread` or `agent`";
        found.ok_or_else(|| Fault::invalid("by", text))
    };
    name.map(known).transpose()
}
