//! Sandboxes.

mod copy;
mod sleep;
mod watch;

use axum::extract::State;
use axum::{Extension, Json};
use http::{HeaderMap, StatusCode};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::{CreateSandbox, DeadlineChange, SandboxView};
use woodfrog_types::key::Principal;
use woodfrog_types::sandbox::{Order, Resources, SandboxFilter};
use woodfrog_types::{Fault, Timestamp};
use woodfrog_wire::native::network::Network;
use woodfrog_wire::native::page::{Page, PageQuery};
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::sandbox::{Deadline, DeadlineMode, NewSandbox, Sandbox, SandboxQuery};

use super::extract::{InPath, Json as Body, Params, pairs};
use super::problem::Result;
use crate::input::idempotency_key;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(fetch, delete))
        .routes(routes!(deadline))
        .routes(routes!(network))
        .merge(sleep::routes())
        .merge(copy::routes())
        .merge(watch::routes())
}

/// The states that a list can be asked for.
const STATES: [&str; 8] = [
    "creating",
    "running",
    "paused",
    "hibernating",
    "hibernated",
    "waking",
    "archiving",
    "archived",
];
/// What a request that names no template gets.
const DEFAULT_TEMPLATE: &str = "base";

/// Makes a sandbox and waits until its guest answers. `Idempotency-Key` makes a repeated request
/// answer with the sandbox that the first one made.
#[utoipa::path(
    post, path = "/sandboxes", operation_id = "sandbox_create", tag = "sandboxes",
    request_body = NewSandbox,
    params(("Idempotency-Key" = Option<String>, Header)),
    responses((status = 201, body = Sandbox), (status = "default", body = Problem))
)]
async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
    Body(request): Body<NewSandbox>,
) -> Result<(StatusCode, Json<Sandbox>)> {
    let template = request
        .template
        .as_deref()
        .unwrap_or(DEFAULT_TEMPLATE)
        .to_owned();
    let resources = match request.resources {
        None => None,
        Some(wanted) => Some(wanted.over(template_resources(&app, &principal, &template).await?)),
    };
    let wanted = CreateSandbox {
        template,
        timeout: request.timeout()?,
        on_timeout: request.on_timeout.into(),
        auto_resume: request.auto_resume,
        sleep: request.sleep.changes()?,
        metadata: request.metadata,
        env: request.env,
        network: request.network.into(),
        secure: request.secure.unwrap_or(true),
        volumes: request.volumes.into_iter().map(Into::into).collect(),
        resources,
        idempotency_key: idempotency_key(&headers)?,
    };
    let began = std::time::Instant::now();
    let view = app.engine.sandbox_create(&principal, wanted).await;
    app.telemetry.created(began.elapsed(), &view);
    Ok((StatusCode::CREATED, Json(reply(view?))))
}

async fn template_resources(
    app: &App,
    principal: &Principal,
    template: &str,
) -> std::result::Result<Resources, Fault> {
    match app.engine.template_resolve(principal, template).await {
        Ok(view) => Ok(view.template.resources),
        Err(unknown) => match app.engine.snapshot_fetch(principal, template).await {
            Ok(snapshot) => Ok(snapshot.resources),
            Err(_) => Err(unknown),
        },
    }
}

/// Sandboxes of the workspace, newest first.
#[utoipa::path(
    get, path = "/sandboxes", operation_id = "sandbox_list", tag = "sandboxes",
    params(SandboxQuery),
    responses((status = 200, body = Page<Sandbox>), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<SandboxQuery>,
) -> Result<Json<Page<Sandbox>>> {
    let paging = PageQuery {
        limit: query.limit,
        cursor: query.cursor.clone(),
    };
    let page = paging.request()?;
    let filter = filter(&app, &principal, query).await?;
    let page = app.engine.sandbox_list(&principal, filter, page).await?;
    Ok(Json(page.map(reply).into()))
}

async fn filter(
    app: &App,
    principal: &Principal,
    query: SandboxQuery,
) -> std::result::Result<SandboxFilter, Fault> {
    let order = match query.order.as_deref() {
        None | Some("desc") => Order::NewestFirst,
        Some("asc") => Order::OldestFirst,
        Some(_) => return Err(Fault::invalid("order", "order must be `asc` or `desc`")),
    };
    let template = match query.template {
        None => None,
        Some(name) => Some(
            app.engine
                .template_resolve(principal, &name)
                .await?
                .template
                .id,
        ),
    };
    Ok(SandboxFilter {
        states: states(query.state.as_deref())?,
        metadata: pairs("metadata", query.metadata.as_deref().unwrap_or_default())?,
        template,
        started_after: query.started_after.map(Timestamp::from_millis),
        order,
    })
}

/// Our states by their names.
fn states(text: Option<&str>) -> std::result::Result<Vec<&'static str>, Fault> {
    let known = |name: &str| {
        let found = STATES.iter().find(|state| **state == name);
        found.copied().ok_or_else(|| {
            let message = format!("state must be among {}", STATES.join(", "));
            Fault::invalid("state", message)
        })
    };
    let names = text.unwrap_or_default().split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(known).collect()
}

/// One sandbox.
#[utoipa::path(
    get, path = "/sandboxes/{id}", operation_id = "sandbox_fetch", tag = "sandboxes",
    params(("id" = String, Path)),
    responses((status = 200, body = Sandbox), (status = "default", body = Problem))
)]
async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
) -> Result<Json<Sandbox>> {
    let view = app.engine.sandbox_fetch(&principal, &id).await?;
    Ok(Json(reply(view)))
}

/// Removes a sandbox; nothing of it is left when the reply comes.
#[utoipa::path(
    delete, path = "/sandboxes/{id}", operation_id = "sandbox_delete", tag = "sandboxes",
    params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn delete(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
) -> Result<StatusCode> {
    app.engine.sandbox_delete(&principal, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Moves the deadline.
#[utoipa::path(
    put, path = "/sandboxes/{id}/timeout", operation_id = "sandbox_timeout", tag = "sandboxes",
    request_body = Deadline, params(("id" = String, Path)),
    responses((status = 200, body = Sandbox), (status = "default", body = Problem))
)]
async fn deadline(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Body(request): Body<Deadline>,
) -> Result<Json<Sandbox>> {
    let change = match (request.timeout()?, request.mode) {
        (None, _) => DeadlineChange::Never,
        (Some(timeout), DeadlineMode::Set) => DeadlineChange::Set(timeout),
        (Some(timeout), DeadlineMode::Extend) => DeadlineChange::Extend(timeout),
    };
    let view = app.engine.sandbox_deadline(&principal, &id, change).await?;
    Ok(Json(reply(view)))
}

/// Replaces the network rules; in force for new connections when the reply comes.
#[utoipa::path(
    put, path = "/sandboxes/{id}/network", operation_id = "sandbox_network", tag = "sandboxes",
    request_body = Network, params(("id" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn network(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    InPath(id): InPath,
    Body(request): Body<Network>,
) -> Result<StatusCode> {
    app.engine
        .sandbox_network(&principal, &id, request.into())
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn reply(view: SandboxView) -> Sandbox {
    Sandbox::new(view.sandbox, view.access_token, view.traffic_token)
}
