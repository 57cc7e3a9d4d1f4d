//! The one door to every face: who asks, how often, whether they may, and what is written down of
//! it. Faces give the action and the shape of their errors.

mod agent;
mod answer;
mod stream;
mod table;

use std::future::Future;

use axum::extract::{MatchedPath, OriginalUri, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue};
use woodfrog_core::access::{self, Action, Kind};
use woodfrog_types::audit::{AuditEntry, AuditOutcome, NewAuditEntry};
use woodfrog_types::key::Principal;
use woodfrog_types::{Fault, Timestamp};

use crate::state::{App, credential};

pub(crate) use agent::action as agent_action;
pub(crate) use stream::Grant;
pub use table::{e2b_action, native_action};

/// Names the workspace that is meant, by id or name.
pub const WORKSPACE: HeaderName = HeaderName::from_static("x-woodfrog-workspace");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of a request id that is taken over.
const REQUEST_ID_MAX: usize = 128;

/// The id that a face gave the request.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// A request at the door.
pub(crate) struct Call {
    pub(crate) face: &'static str,
    pub(crate) action: Action,
    pub(crate) target: String,
    pub(crate) request_id: String,
}

impl Call {
    /// What a request to a route is.
    pub(crate) fn of(face: &'static str, action: Action, request: &Request) -> Self {
        Self {
            face,
            action,
            target: target(request),
            request_id: request_id(request),
        }
    }
}

/// Who asks: by the headers, in the workspace that the path names or else the header.
pub(crate) async fn principal(
    app: &App,
    headers: &HeaderMap,
    in_path: Option<&str>,
) -> Result<(Principal, Grant), Fault> {
    let header = headers.get(WORKSPACE).map(HeaderValue::to_str);
    let header = header
        .transpose()
        .map_err(|_| Fault::invalid(WORKSPACE.as_str(), "the workspace is not text"))?;
    let named = in_path
        .or(header)
        .map(str::trim)
        .filter(|one| !one.is_empty());
    let principal = app.principal_in(headers, named).await?;
    let grant = Grant::new(
        app.engine.clone(),
        credential(headers).unwrap_or_default(),
        named,
        principal.clone(),
    );
    Ok((principal, grant))
}

/// Lets a request in, or refuses it in the face's shape, and writes down what came of it.
pub(crate) async fn pass<E, F>(
    app: &App,
    call: Call,
    mut request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response
where
    E: From<Fault> + IntoResponse,
    F: Future<Output = Response>,
{
    let in_path = table::workspace_in(&request);
    let found = principal(app, request.headers(), in_path.as_deref()).await;
    let (principal, grant) = match found {
        Ok(found) => found,
        Err(fault) => return E::from(fault).into_response(),
    };
    request.extensions_mut().insert(principal.clone());
    request.extensions_mut().insert(grant.clone());
    enter::<E, F>(app, call, principal, grant, request, next).await
}

/// As [`pass`], for a principal who was found out already.
pub(crate) async fn enter<E, F>(
    app: &App,
    call: Call,
    principal: Principal,
    grant: Grant,
    request: Request,
    next: impl FnOnce(Request) -> F,
) -> Response
where
    E: From<Fault> + IntoResponse,
    F: Future<Output = Response>,
{
    let rate = match app.engine.count_request(&principal).await {
        Ok(rate) => rate,
        Err(fault) => return E::from(fault).into_response(),
    };
    if let Some(rate) = rate.filter(|rate| !rate.verdict.admitted) {
        let mut response = E::from(answer::too_many(&rate)).into_response();
        answer::rate_headers(&mut response, &rate);
        return response;
    }
    if let Err(fault) = check(app, &principal, &call).await {
        return E::from(fault).into_response();
    }
    let mut response = next(request).await;
    if let Some(rate) = &rate {
        answer::rate_headers(&mut response, rate);
    }
    response = stream::guard(response, grant);
    match written(app, &principal, call, response).await {
        Ok(response) => response,
        Err(fault) => E::from(fault).into_response(),
    }
}

/// Writes down what came of a call that changes something.
async fn written(
    app: &App,
    principal: &Principal,
    mut call: Call,
    response: Response,
) -> Result<Response, Fault> {
    let kind = call.action.kind();
    if kind == Kind::Read {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let (response, made) = answer::made(response).await;
    if let Some(made) = made {
        call.target = match call.target.is_empty() {
            true => made,
            false => format!("{}/{made}", call.target),
        };
    }
    let entry = entry(
        principal,
        &call,
        AuditOutcome::of_status(status),
        &status.to_string(),
    );
    match kind {
        Kind::Administrative => app.engine.audit_durable(entry).await?,
        Kind::Write | Kind::Read => app.engine.audit_later(entry).await,
    }
    Ok(response)
}

/// Counts a request that has several calls in it. `RateLimited` if it is one too many.
pub(crate) async fn count(app: &App, principal: &Principal) -> Result<(), Fault> {
    let rate = app.engine.count_request(principal).await?;
    match rate.filter(|rate| !rate.verdict.admitted) {
        Some(rate) => Err(answer::too_many(&rate)),
        None => Ok(()),
    }
}

/// Whether a call may be made that is one of several in a request; a refusal is written down.
pub(crate) async fn check(app: &App, principal: &Principal, call: &Call) -> Result<(), Fault> {
    let checked = access::check(principal.role, call.action);
    if let Err(fault) = &checked {
        note(
            app,
            principal,
            call,
            AuditOutcome::Refused,
            fault.code.as_str(),
        )
        .await;
    }
    checked
}

/// Writes down what came of a call, if it is one that changes something.
pub(crate) async fn note(
    app: &App,
    principal: &Principal,
    call: &Call,
    outcome: AuditOutcome,
    detail: &str,
) {
    if call.action.kind() != Kind::Read {
        let entry = entry(principal, call, outcome, detail);
        app.engine.audit_later(entry).await;
    }
}

/// The entry of a call.
fn entry(principal: &Principal, call: &Call, outcome: AuditOutcome, detail: &str) -> NewAuditEntry {
    let target = call.target.chars();
    NewAuditEntry {
        workspace: principal.workspace.clone(),
        at: Timestamp::now(),
        actor: principal.user.clone(),
        key: principal.key.clone(),
        action: call.action.as_str().to_owned(),
        target: target.take(AuditEntry::TARGET_CHARS_MAX).collect(),
        outcome,
        detail: detail.to_owned(),
        face: call.face.to_owned(),
        request_id: call.request_id.clone(),
    }
}

/// What a path names: the parts of it that its route leaves open.
fn target(request: &Request) -> String {
    let Some(matched) = request.extensions().get::<MatchedPath>() else {
        return String::new();
    };
    let original = request.extensions().get::<OriginalUri>();
    let path = original
        .map_or(request.uri(), |OriginalUri(uri)| uri)
        .path();
    // From the end: a prefix may have been taken off one of them.
    let parts = matched.as_str().rsplit('/').zip(path.rsplit('/'));
    let open = parts.filter(|(route, _)| route.starts_with('{'));
    let mut named: Vec<&str> = open.map(|(_, part)| part).collect();
    named.reverse();
    named.join("/")
}

/// The request's id: what its face or its caller gave it, else a fresh one.
pub(crate) fn request_id(request: &Request) -> String {
    if let Some(RequestId(id)) = request.extensions().get::<RequestId>() {
        return id.clone();
    }
    let given = request.headers().get(REQUEST_ID);
    let given = given.and_then(|id| id.to_str().ok());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    given
        .filter(|id| (1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(plain))
        .map_or_else(|| uuid::Uuid::now_v7().simple().to_string(), str::to_owned)
}

/// A route that no table has: nobody but an owner gets in.
pub(crate) fn unlisted(found: Option<Action>) -> Action {
    found.unwrap_or(Action::Unlisted)
}
