//! The audit log of a workspace.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::{Extension, Json};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_types::audit::{AuditFilter, AuditOutcome};
use woodfrog_types::key::Principal;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::PageRequest;
use woodfrog_types::workspace::UserId;
use woodfrog_types::{Fault, Timestamp};
use woodfrog_wire::native::audit::{
    AuditCheck, AuditEntry, AuditExport, AuditPage, AuditPeriod, AuditQuery, AuditReport,
    AuditReportRow,
};
use woodfrog_wire::native::problem::Problem;

use super::extract::Params;
use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(verify))
        .routes(routes!(export))
        .routes(routes!(report))
}

/// A page of the log, newest first.
#[utoipa::path(
    get, path = "/workspaces/{workspace}/audit", operation_id = "audit_list", tag = "audit",
    params(("workspace" = String, Path), AuditQuery),
    responses((status = 200, body = AuditPage), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<AuditQuery>,
) -> Result<Json<AuditPage>> {
    let page = PageRequest {
        limit: query.limit.unwrap_or(PAGE_ITEMS_MAX),
        cursor: query.cursor.clone(),
    };
    let filter = filter(AuditExport {
        format: None,
        actor: query.actor,
        action: query.action,
        target: query.target,
        outcome: query.outcome,
        from: query.from,
        until: query.until,
    })?;
    let found = app.engine.audit_list(&principal, &filter, page).await?;
    Ok(Json(AuditPage {
        items: found.items.into_iter().map(Into::into).collect(),
        next: found.next,
    }))
}

/// Reads the whole log and says whether an entry was changed, removed or moved.
#[utoipa::path(
    get, path = "/workspaces/{workspace}/audit/verify", operation_id = "audit_verify",
    tag = "audit", params(("workspace" = String, Path)),
    responses((status = 200, body = AuditCheck), (status = "default", body = Problem))
)]
async fn verify(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<AuditCheck>> {
    let check = app.engine.audit_verify(&principal).await?;
    Ok(Json(AuditCheck {
        intact: check.flaw.is_none(),
        flaw: check.flaw.map(|flaw| flaw.to_string()),
        entries: check.entries,
        first: check.first,
        last: check.last,
        head: check.head,
    }))
}

/// The log as JSON lines or CSV, oldest first.
#[utoipa::path(
    get, path = "/workspaces/{workspace}/audit/export", operation_id = "audit_export",
    tag = "audit", params(("workspace" = String, Path), AuditExport),
    responses(
        (status = 200, content((String = "application/x-ndjson"), (String = "text/csv"))),
        (status = "default", body = Problem)
    )
)]
async fn export(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<AuditExport>,
) -> Result<Response> {
    let (row, kind): (fn(AuditEntry) -> String, _) = match query.format.as_deref() {
        None | Some("jsonl") => (json_line, "application/x-ndjson"),
        Some("csv") => (csv_row, "text/csv; charset=utf-8"),
        Some(_) => {
            let text = "the format is jsonl or csv";
            return Err(Fault::invalid("format", text).into());
        }
    };
    let csv = kind.starts_with("text/csv");
    let filter = filter(query)?;
    // The first part is read now: who may not read learns it as a refusal.
    let first = app.engine.audit_part(&principal, &filter, 0).await?;
    let head = match csv {
        true => csv_line(AuditEntry::COLUMNS.map(str::to_owned)),
        false => String::new(),
    };
    let parts = stream::unfold(Some((head, first)), move |state| {
        let (app, principal, filter) = (app.clone(), principal.clone(), filter.clone());
        async move {
            let (mut text, (part, next)) = state?;
            text.extend(part.into_iter().map(|one| row(one.into())));
            let more = match next {
                None => None,
                Some(after) => match app.engine.audit_part(&principal, &filter, after).await {
                    Ok(more) => Some((String::new(), more)),
                    Err(fault) => {
                        // An end that comes too early must not look like one.
                        crate::input::log(&fault);
                        return Some((Err(fault), None));
                    }
                },
            };
            Some((Ok(Bytes::from(text)), more))
        }
    });
    let mut response = Response::new(Body::from_stream(parts));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}

/// What was done in a period: counts by action, actor and outcome.
#[utoipa::path(
    get, path = "/workspaces/{workspace}/audit/report", operation_id = "audit_report",
    tag = "audit", params(("workspace" = String, Path), AuditPeriod),
    responses((status = 200, body = AuditReport), (status = "default", body = Problem))
)]
async fn report(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(period): Params<AuditPeriod>,
) -> Result<Json<AuditReport>> {
    let from = period.from.map(Timestamp::from_millis);
    let until = period.until.map(Timestamp::from_millis);
    let report = app.engine.audit_report(&principal, from, until).await?;
    let row = |row: woodfrog_engine::ReportRow| AuditReportRow {
        action: row.action,
        actor: row.actor,
        outcome: row.outcome.to_owned(),
        count: row.count,
    };
    Ok(Json(AuditReport {
        from: period.from,
        until: period.until,
        total: report.total,
        rows: report.rows.into_iter().map(row).collect(),
    }))
}

fn filter(query: AuditExport) -> std::result::Result<AuditFilter, Fault> {
    let outcome = |name: String| {
        let text = "the outcome is done, refused or failed";
        AuditOutcome::parse(&name).ok_or_else(|| Fault::invalid("outcome", text))
    };
    let actor = |name: String| {
        let text = "a user's name has 1 to 100 printable characters";
        UserId::parse(&name).ok_or_else(|| Fault::invalid("actor", text))
    };
    Ok(AuditFilter {
        actor: query.actor.map(actor).transpose()?,
        action: query.action,
        target: query.target,
        outcome: query.outcome.map(outcome).transpose()?,
        from: query.from.map(Timestamp::from_millis),
        until: query.until.map(Timestamp::from_millis),
    })
}

fn json_line(entry: AuditEntry) -> String {
    // Text and numbers: it cannot fail.
    let mut line = serde_json::to_string(&entry).unwrap_or_default();
    line.push('\n');
    line
}

fn csv_row(entry: AuditEntry) -> String {
    csv_line(entry.cells())
}

/// A line of CSV (RFC 4180). What a spreadsheet would take for a formula is text to it.
fn csv_line(cells: [String; 12]) -> String {
    let cell = |cell: &String| {
        let formula = cell.starts_with(['=', '+', '-', '@', '\t']);
        let text = match formula {
            true => format!("'{cell}"),
            false => cell.clone(),
        };
        match formula || text.contains([',', '"', '\n', '\r']) {
            true => format!("\"{}\"", text.replace('"', "\"\"")),
            false => text,
        }
    };
    let cells: Vec<String> = cells.iter().map(cell).collect();
    format!("{}\r\n", cells.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_is_quoted_where_it_must_be() {
        let mut cells: [String; 12] = std::array::from_fn(|_| "x".to_owned());
        cells[0] = "a,\"b\"\nc".to_owned();
        cells[1] = "=1+1".to_owned();
        let line = csv_line(cells);
        let expected = "\"a,\"\"b\"\"\nc\",\"'=1+1\",x,x,x,x,x,x,x,x,x,x\r\n";
        assert_eq!(line, expected);
    }
}
