//! Health and metrics: `/healthz`, `/readyz`, `/metrics`.

mod telemetry;

use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{StatusCode, header};

pub use telemetry::Telemetry;

use crate::state::App;

/// The routes of this face. Nobody needs a key for them.
pub fn router(app: &App) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(app.clone())
}

/// Counts and times every request of a face. Give it the face's name.
pub async fn measure(
    State((app, face)): State<(App, &'static str)>,
    path: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let response = next.run(request).await;
    let route = path.as_ref().map_or("unmatched", MatchedPath::as_str);
    app.telemetry
        .request(face, route, response.status().as_u16(), began.elapsed());
    response
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(app): State<App>) -> (StatusCode, &'static str) {
    if app.engine.ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(app): State<App>) -> Response {
    app.telemetry.set_running(app.engine.running());
    app.telemetry.set_spares(app.engine.spares());
    app.telemetry.set_queued(app.runs.queued());
    if let Some(traced) = &app.traces {
        app.telemetry.set_spans(traced.exporter.counts());
    }
    match app.runs.states().await {
        Ok(states) => app.telemetry.set_runs(&states),
        // The other numbers are true all the same; these are left out rather than old.
        Err(fault) => {
            tracing::warn!(%fault, "runs cannot be counted");
            app.telemetry.set_runs(&[]);
        }
    }
    match app.telemetry.render() {
        Ok(text) => ([(header::CONTENT_TYPE, telemetry::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
