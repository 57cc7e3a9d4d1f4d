//! The procedures `sandbox.*` for unmodified tRPC clients, mounted at [`PREFIX`].
//!
//! Queries by GET, mutations by POST, alone or as a batch, with superjson as the transformer.

mod procedures;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use tower_http::catch_panic::CatchPanicLayer;
use woodfrog_types::Fault;
use woodfrog_wire::trpc::{Answer, BATCH_MAX, Kind, inputs};

use crate::input::json_bytes;
use crate::state::App;
use procedures::Caller;

/// Where the face is mounted.
pub const PREFIX: &str = "/api/trpc";

/// The face, to be nested at [`PREFIX`].
pub fn router(app: &App) -> Router {
    Router::new()
        .route("/{*path}", get(serve).post(serve))
        .method_not_allowed_fallback(async |method: Method| {
            let text = format!("Unsupported {method}-request");
            alone(&Kind::MethodNotSupported.answer(text, None))
        })
        .fallback(async || alone(&Kind::NotFound.answer("No procedure is named", None)))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn_with_state(
            (app.clone(), "trpc"),
            crate::observe::measure,
        ))
        .with_state(app.clone())
}

#[derive(Debug, Default, Deserialize)]
struct Params {
    batch: Option<String>,
    input: Option<String>,
}

async fn serve(
    State(app): State<App>,
    Path(path): Path<String>,
    params: Result<Query<Params>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Response {
    let Ok(Query(params)) = params else {
        return alone(&Kind::BadRequest.answer("the query cannot be read", None));
    };
    let (parts, body) = request.into_parts();
    let batch = params.batch.as_deref() == Some("1");
    let paths: Vec<&str> = match batch {
        true => path.split(',').collect(),
        false => vec![&path],
    };
    if paths.len() > BATCH_MAX {
        let text = format!("a batch has at most {BATCH_MAX} calls");
        return alone(&Kind::BadRequest.answer(text, None));
    }
    let text = match text(&parts.method, params, body).await {
        Ok(text) => text,
        Err(fault) => return alone(&Kind::of(fault.code).answer(fault.message, None)),
    };
    let Ok(inputs) = inputs(text.as_deref(), batch, paths.len()) else {
        return alone(&Kind::Parse.answer("the input is not JSON", None));
    };
    let request_id = parts.headers.get("x-request-id");
    let request_id = request_id
        .and_then(|id| id.to_str().ok())
        .unwrap_or_default();
    let request_id = request_id.chars().take(128).collect();
    let caller = Caller::new(&app, &parts.headers, request_id).await;
    // One after the other, as the caller ordered them.
    let mut answers = Vec::with_capacity(paths.len());
    for (path, input) in paths.iter().zip(inputs) {
        let answer = procedures::call(&app, &caller, &parts.method, path, input.as_ref());
        answers.push(answer.await);
    }
    match (batch, answers.as_slice()) {
        (false, [one]) => alone(one),
        _ => reply(together(&answers), &answers),
    }
}

/// The input's text: a query's is in the address, a mutation's in the body.
async fn text(method: &Method, params: Params, body: Body) -> Result<Option<String>, Fault> {
    if method != Method::POST {
        return Ok(params.input);
    }
    let bytes = json_bytes(body).await?;
    let text = String::from_utf8(bytes.to_vec());
    let text = text.map_err(|_| Fault::invalid("body", "the body is not UTF-8"))?;
    Ok(Some(text))
}

/// The status of a batch: that of its calls if they agree, else 207.
fn together(answers: &[Answer]) -> u16 {
    let mut statuses = answers.iter().map(Answer::http_status);
    let first = statuses.next().unwrap_or(200);
    match statuses.all(|status| status == first) {
        true => first,
        false => 207,
    }
}

fn alone(answer: &Answer) -> Response {
    reply(answer.http_status(), answer)
}

fn reply<T: serde::Serialize + ?Sized>(status: u16, body: &T) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers = HeaderMap::new();
    let no_store = http::HeaderValue::from_static("no-store");
    headers.insert(header::CACHE_CONTROL, no_store);
    (status, headers, axum::Json(body)).into_response()
}

fn panicked(panic: Box<dyn std::any::Any + Send>) -> Response {
    crate::input::log_panic(&*panic);
    alone(&Kind::Internal.answer("internal error", None))
}
