//! Workspaces, the people in them, and what they may use.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_engine::{Removal as Removing, SleepDefaultsView};
use woodfrog_types::key::Principal;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::PageRequest;
use woodfrog_types::workspace::{Role, UserId};
use woodfrog_types::{Fault, Timestamp};
use woodfrog_wire::native::page::PageQuery;
use woodfrog_wire::native::problem::Problem;
use woodfrog_wire::native::workspace::{
    LimitsChange, LimitsRecord, Member, MemberChange, Members, NewMember, NewWorkspace, Removal,
    Removals, SleepDefaults, SleepDefaultsChange, Workspace, WorkspaceChange, Workspaces,
};

use super::extract::{Json as Body, Params, Segments};
use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(removals))
        .routes(routes!(fetch, rename, remove))
        .routes(routes!(members, add))
        .routes(routes!(set_role, put_out))
        .routes(routes!(limits, set_limits))
        .routes(routes!(sleep_defaults, set_sleep_defaults))
}

/// The caller's workspaces; the operator's are all of them.
#[utoipa::path(
    get, path = "/workspaces", operation_id = "workspace_list", tag = "workspaces",
    params(PageQuery),
    responses((status = 200, body = Workspaces), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Params(query): Params<PageQuery>,
) -> Result<Json<Workspaces>> {
    let page = PageRequest {
        limit: query.limit.unwrap_or(PAGE_ITEMS_MAX),
        cursor: query.cursor,
    };
    let found = app.engine.workspace_list(&principal, page).await?;
    let found = found.map(|(workspace, role)| Workspace::new(workspace, role));
    Ok(Json(Workspaces {
        items: found.items,
        next: found.next,
    }))
}

/// Makes a workspace; who asks owns it.
#[utoipa::path(
    post, path = "/workspaces", operation_id = "workspace_create", tag = "workspaces",
    request_body = NewWorkspace,
    responses((status = 201, body = Workspace), (status = "default", body = Problem))
)]
async fn create(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(request): Body<NewWorkspace>,
) -> Result<(StatusCode, Json<Workspace>)> {
    let owner = request.owner.as_deref().map(|owner| user("owner", owner));
    let owner = owner.transpose()?;
    let made = app
        .engine
        .workspace_create(&principal, &request.name, owner)
        .await?;
    Ok((StatusCode::CREATED, Json(Workspace::new(made, Role::Owner))))
}

/// The caller's workspaces that are being removed, and how far that is.
#[utoipa::path(
    get, path = "/workspaces/removals", operation_id = "workspace_removals", tag = "workspaces",
    responses((status = 200, body = Removals), (status = "default", body = Problem))
)]
async fn removals(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Removals>> {
    let found = app.engine.workspace_removals(&principal).await?;
    let items = found.into_iter().map(removal).collect();
    Ok(Json(Removals { items }))
}

/// One workspace, by id or name.
#[utoipa::path(
    get, path = "/workspaces/{workspace}", operation_id = "workspace_fetch", tag = "workspaces",
    params(("workspace" = String, Path)),
    responses((status = 200, body = Workspace), (status = "default", body = Problem))
)]
async fn fetch(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Workspace>> {
    let found = app.engine.workspace_fetch(&principal).await?;
    Ok(Json(Workspace::new(found, principal.role)))
}

/// Gives a workspace another name. For its owner.
#[utoipa::path(
    patch, path = "/workspaces/{workspace}", operation_id = "workspace_rename",
    tag = "workspaces", params(("workspace" = String, Path)), request_body = WorkspaceChange,
    responses((status = 200, body = Workspace), (status = "default", body = Problem))
)]
async fn rename(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(change): Body<WorkspaceChange>,
) -> Result<Json<Workspace>> {
    let renamed = app.engine.workspace_rename(&principal, &change.name);
    Ok(Json(Workspace::new(renamed.await?, principal.role)))
}

/// Removes a workspace and everything in it. For its owner. From the answer on nothing in it can
/// be reached; what it had goes bit by bit.
#[utoipa::path(
    delete, path = "/workspaces/{workspace}", operation_id = "workspace_remove",
    tag = "workspaces", params(("workspace" = String, Path)),
    responses((status = 202, body = Workspace), (status = "default", body = Problem))
)]
async fn remove(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<(StatusCode, Json<Workspace>)> {
    let marked = app.engine.workspace_remove(&principal).await?;
    let marked = Workspace::new(marked, principal.role);
    Ok((StatusCode::ACCEPTED, Json(marked)))
}

/// Who is in a workspace.
#[utoipa::path(
    get, path = "/workspaces/{workspace}/members", operation_id = "member_list",
    tag = "workspaces", params(("workspace" = String, Path)),
    responses((status = 200, body = Members), (status = "default", body = Problem))
)]
async fn members(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Members>> {
    let found = app.engine.member_list(&principal).await?;
    let items = found.into_iter().map(Into::into).collect();
    Ok(Json(Members { items }))
}

/// Takes somebody in. Admins are taken in by the owner.
#[utoipa::path(
    post, path = "/workspaces/{workspace}/members", operation_id = "member_add",
    tag = "workspaces", params(("workspace" = String, Path)), request_body = NewMember,
    responses((status = 201, body = Member), (status = "default", body = Problem))
)]
async fn add(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(new): Body<NewMember>,
) -> Result<(StatusCode, Json<Member>)> {
    let who = user("user", &new.user)?;
    let added = app.engine.member_add(&principal, &who, new.role.into());
    Ok((StatusCode::CREATED, Json(added.await?.into())))
}

/// Gives a member another role. Admins are made and unmade by the owner.
#[utoipa::path(
    patch, path = "/workspaces/{workspace}/members/{user}", operation_id = "member_role",
    tag = "workspaces", params(("workspace" = String, Path), ("user" = String, Path)),
    request_body = MemberChange,
    responses((status = 200, body = Member), (status = "default", body = Problem))
)]
async fn set_role(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments((_, who)): Segments<(String, String)>,
    Body(change): Body<MemberChange>,
) -> Result<Json<Member>> {
    let who = user("user", &who)?;
    let changed = app.engine.member_role(&principal, &who, change.role.into());
    Ok(Json(changed.await?.into()))
}

/// Puts a member out; their open streams end within seconds.
#[utoipa::path(
    delete, path = "/workspaces/{workspace}/members/{user}", operation_id = "member_remove",
    tag = "workspaces", params(("workspace" = String, Path), ("user" = String, Path)),
    responses((status = 204), (status = "default", body = Problem))
)]
async fn put_out(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Segments((_, who)): Segments<(String, String)>,
) -> Result<StatusCode> {
    let who = user("user", &who)?;
    app.engine.member_remove(&principal, &who).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What a workspace may use.
#[utoipa::path(
    get, path = "/workspaces/{workspace}/limits", operation_id = "limits_fetch",
    tag = "workspaces", params(("workspace" = String, Path)),
    responses((status = 200, body = LimitsRecord), (status = "default", body = Problem))
)]
async fn limits(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<LimitsRecord>> {
    Ok(Json(app.engine.limits_fetch(&principal).await?.into()))
}

/// Sets what a workspace may use.
#[utoipa::path(
    put, path = "/workspaces/{workspace}/limits", operation_id = "limits_set",
    tag = "workspaces", params(("workspace" = String, Path)), request_body = LimitsChange,
    responses((status = 200, body = LimitsRecord), (status = "default", body = Problem))
)]
async fn set_limits(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(change): Body<LimitsChange>,
) -> Result<Json<LimitsRecord>> {
    let set = app
        .engine
        .limits_set(&principal, change.limits.into(), change.generation);
    Ok(Json(set.await?.into()))
}

/// When the workspace's sandboxes go to sleep whose request does not say.
#[utoipa::path(
    get, path = "/workspaces/{workspace}/sleep", operation_id = "sleep_defaults_fetch",
    tag = "workspaces", params(("workspace" = String, Path)),
    responses((status = 200, body = SleepDefaults), (status = "default", body = Problem))
)]
async fn sleep_defaults(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<SleepDefaults>> {
    let found = app.engine.sleep_defaults_fetch(&principal).await?;
    Ok(Json(sleep_view(found)))
}

/// Sets when the workspace's sandboxes go to sleep whose request does not say: those that are made
/// from now on.
#[utoipa::path(
    put, path = "/workspaces/{workspace}/sleep", operation_id = "sleep_defaults_set",
    tag = "workspaces", params(("workspace" = String, Path)), request_body = SleepDefaultsChange,
    responses((status = 200, body = SleepDefaults), (status = "default", body = Problem))
)]
async fn set_sleep_defaults(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(change): Body<SleepDefaultsChange>,
) -> Result<Json<SleepDefaults>> {
    let said = change.sleep.changes()?;
    let set = app
        .engine
        .sleep_defaults_set(&principal, said, change.generation);
    Ok(Json(sleep_view(set.await?)))
}

fn sleep_view(view: SleepDefaultsView) -> SleepDefaults {
    SleepDefaults {
        sleep: view.defaults.sleep.into(),
        generation: view.defaults.generation,
        updated_at: view.defaults.updated_at.as_millis(),
        server: view.server.into(),
        effective: view.effective.into(),
    }
}

fn removal(one: Removing) -> Removal {
    let since = one.workspace.removing_since.map_or(0, Timestamp::as_millis);
    Removal {
        id: one.workspace.id.to_string(),
        name: one.workspace.name,
        removing_since: since,
        removed: one.removed,
        error: one.error,
    }
}

fn user(field: &str, name: &str) -> std::result::Result<UserId, Fault> {
    let chars = name.chars().count();
    UserId::parse(name).ok_or_else(|| match chars > UserId::CHARS_MAX {
        true => Fault::invalid(
            field,
            format!(
                "userId exceeds maximum length of {} characters (got {chars})",
                UserId::CHARS_MAX
            ),
        ),
        false => Fault::invalid(field, "a user's name has 1 to 100 printable characters"),
    })
}
