//! The E2B control plane: what the E2B SDKs call with an API key.
//!
//! Both API generations are served, side by side. Errors are always JSON with a numeric `code`
//! that equals the HTTP status, since the clients decide by it.

mod builds;
mod error;
mod extract;
mod list;
mod logs;
mod metrics;
mod network;
mod routes;
mod sandboxes;
mod secrets;
mod sleep;
mod snapshots;
mod steps;
mod tag_history;
mod tags;
mod templates;
mod uploads;
mod volume_content;
mod volumes;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::StatusCode;
use tower_http::catch_panic::CatchPanicLayer;

use crate::door;
use crate::state::App;
use error::E2bError;
use routes::Routes;

pub use routes::{Access, Route};

/// Serves every route of this face at the root, and answers 404 for everything else.
pub fn router(app: &App) -> Router {
    let (router, _) = all().into_parts();
    let check = middleware::from_fn_with_state(app.clone(), authorize);
    router
        .keyed
        .route_layer(check)
        .merge(router.public)
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(no_route)
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(middleware::from_fn_with_state(
            (app.clone(), "e2b"),
            crate::observe::measure,
        ))
        .with_state(app.clone())
}

/// The routes that [`router`] serves.
pub fn table() -> Vec<Route> {
    all().into_parts().1
}

fn all() -> Routes {
    let routes = Routes::default().public_get("/health", health);
    let routes = sandboxes::routes(routes);
    let routes = sleep::routes(routes);
    let routes = snapshots::routes(routes);
    let routes = list::routes(routes);
    let routes = metrics::routes(routes);
    let routes = logs::routes(routes);
    let routes = network::routes(routes);
    let routes = volumes::routes(routes);
    let routes = volume_content::routes(routes);
    let routes = secrets::routes(routes);
    let routes = templates::routes(routes);
    let routes = tags::routes(routes);
    let routes = tag_history::routes(routes);
    let routes = builds::routes(routes);
    uploads::routes(routes)
}

/// Resolves the principal once; handlers take it as `Extension<Principal>`.
async fn authorize(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("", MatchedPath::as_str);
    let action = door::unlisted(door::e2b_action(request.method().as_str(), route));
    let call = door::Call::of("e2b", action, &request);
    door::pass::<E2bError, _>(&app, call, request, |request| next.run(request)).await
}

async fn health() -> StatusCode {
    StatusCode::NO_CONTENT
}

async fn no_route(request: Request) -> E2bError {
    let path: String = request.uri().path().chars().take(200).collect();
    E2bError::plain(
        StatusCode::NOT_FOUND,
        format!("no route {} {path}", request.method()),
    )
}

async fn method_not_allowed(request: Request) -> E2bError {
    E2bError::plain(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("method {} is not allowed here", request.method()),
    )
}
