//! The budget of the workspace.

use axum::extract::State;
use axum::{Extension, Json};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_billing::{BudgetChange, BudgetView};
use woodfrog_core::access::{self, Action};
use woodfrog_types::key::{Principal, Scope};
use woodfrog_types::{Code, Fault};
use woodfrog_wire::native::billing::{Budget, BudgetPatch, Budgets};
use woodfrog_wire::native::problem::Problem;

use super::extract::Json as Body;
use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show, set, clear))
        .routes(routes!(list))
}

/// The workspace's budget and where it stands this month.
#[utoipa::path(
    get, path = "/budget", operation_id = "budget_show", tag = "billing",
    responses((status = 200, body = Budget), (status = "default", body = Problem))
)]
async fn show(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Budget>> {
    let view = app.billing.budgets.show(&principal.workspace).await?;
    Ok(Json(reply(view)))
}

/// Sets the workspace's budget. What is absent stays, or takes its default.
#[utoipa::path(
    patch, path = "/budget", operation_id = "budget_set", tag = "billing",
    request_body = BudgetPatch,
    responses((status = 200, body = Budget), (status = "default", body = Problem))
)]
async fn set(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(patch): Body<BudgetPatch>,
) -> Result<Json<Budget>> {
    access::check(principal.role, Action::BudgetWrite)?;
    let change = BudgetChange {
        amount: patch.amount_micros,
        thresholds: patch.thresholds,
        hard: patch.hard,
        policy: patch.policy.map(Into::into),
        reserve: patch.reserve_micros,
    };
    let view = app
        .billing
        .budgets
        .set(&principal.workspace, &change)
        .await?;
    Ok(Json(reply(view)))
}

/// Removes the workspace's budget: nothing is limited any more.
#[utoipa::path(
    delete, path = "/budget", operation_id = "budget_clear", tag = "billing",
    responses((status = 204), (status = "default", body = Problem))
)]
async fn clear(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<StatusCode> {
    access::check(principal.role, Action::BudgetWrite)?;
    app.billing.budgets.clear(&principal.workspace).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The budgets of every workspace. Needs a key with the admin scope.
#[utoipa::path(
    get, path = "/budgets", operation_id = "budget_list", tag = "billing",
    responses((status = 200, body = Budgets), (status = "default", body = Problem))
)]
async fn list(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
) -> Result<Json<Budgets>> {
    if principal.scope != Scope::Admin {
        let text = "budgets of every workspace need a key with the admin scope";
        return Err(Fault::new(Code::PermissionDenied, text).into());
    }
    let views = app.billing.budgets.list().await?;
    let items = views.into_iter().map(reply).collect();
    Ok(Json(Budgets { items }))
}

fn reply(view: BudgetView) -> Budget {
    Budget::new(view.budget, view.month, view.spending, &view.alerts)
}
