//! The native API, mounted at [`PREFIX`].
//!
//! Errors are problem+json with a stable `code`; every reply carries a request id. The OpenAPI
//! document is made from the handlers, so what it lists is what is served.

mod artifacts;
mod audit;
mod budgets;
mod exec;
mod extract;
mod files;
mod guest;
mod info;
mod keys;
mod openapi;
mod persist;
mod prices;
mod problem;
mod request_id;
mod runs;
mod sandbox_sessions;
mod sandboxes;
mod sessions;
mod snapshots;
mod socket;
mod templates;
mod usage;
mod volumes;
mod webhooks;
mod workspaces;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use woodfrog_types::{Code, Fault};

use crate::door;
use crate::state::App;
use problem::Failure;

pub use openapi::document;

/// The fault of a failed operation on a process.
pub(crate) fn exec_fault(error: woodfrog_guest_client::GuestError) -> Fault {
    guest::fault(error, guest::About::File)
}

/// Where the face is mounted.
pub const PREFIX: &str = "/api/v1";

/// The face, to be nested at [`PREFIX`]; it answers 404 for everything that it does not know.
pub fn router(app: &App) -> Router {
    let (routes, _) = routes().split_for_parts();
    routes
        .route_layer(middleware::from_fn_with_state(app.clone(), authorize))
        .route("/openapi.json", get(openapi::serve))
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(no_route)
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(middleware::from_fn(request_id::attach))
        .layer(middleware::from_fn_with_state(
            (app.clone(), "native"),
            crate::observe::measure,
        ))
        .with_state(app.clone())
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(info::routes())
        .merge(sandboxes::routes())
        .merge(sandbox_sessions::routes())
        .merge(sessions::routes())
        .merge(runs::routes())
        .merge(artifacts::routes())
        .merge(snapshots::routes())
        .merge(volumes::routes())
        .merge(exec::routes())
        .merge(files::routes())
        .merge(templates::routes())
        .merge(keys::routes())
        .merge(workspaces::routes())
        .merge(audit::routes())
        .merge(persist::routes())
        .merge(prices::routes())
        .merge(budgets::routes())
        .merge(usage::routes())
        .merge(webhooks::routes())
}

/// Resolves the principal once; handlers take it as `Extension<Principal>`.
async fn authorize(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str);
    let route = route.strip_prefix(PREFIX).unwrap_or(route);
    let action = door::unlisted(door::native_action(request.method().as_str(), route));
    let call = door::Call::of("native", action, &request);
    door::pass::<Failure, _>(&app, call, request, |request| next.run(request)).await
}

async fn no_route(request: Request) -> Failure {
    let path: String = request.uri().path().chars().take(200).collect();
    let message = format!("no route {} {PREFIX}{path}", request.method());
    Fault::new(Code::NotFound, message).into()
}

async fn method_not_allowed(request: Request) -> Failure {
    let message = format!("method {} is not allowed here", request.method());
    Failure::plain(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
    )
}
