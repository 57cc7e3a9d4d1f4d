//! Prices: everybody may read them; whoever runs the server changes them, for all workspaces.

use axum::extract::State;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use woodfrog_billing::PriceEdit;
use woodfrog_types::key::{Principal, Scope};
use woodfrog_types::usage::Rung;
use woodfrog_types::{Code, Fault};
use woodfrog_wire::native::billing::{
    NewPrices, PriceQuery, PriceVersionQuery, PriceVersions, Prices, PricesPatch,
};
use woodfrog_wire::native::problem::Problem;

use super::extract::{Json as Body, Params};
use super::problem::Result;
use crate::state::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(show, edit, replace))
        .routes(routes!(versions))
}

/// The prices that hold now, or a version of them.
#[utoipa::path(
    get, path = "/prices", operation_id = "price_show", tag = "billing", params(PriceQuery),
    responses((status = 200, body = Prices), (status = "default", body = Problem))
)]
async fn show(State(app): State<App>, Params(query): Params<PriceQuery>) -> Result<Json<Prices>> {
    let table = app.billing.prices.fetch(query.version).await?;
    Ok(Json((&table).into()))
}

/// Versions of the prices, the latest first.
#[utoipa::path(
    get, path = "/prices/versions", operation_id = "price_versions", tag = "billing",
    params(PriceVersionQuery),
    responses((status = 200, body = PriceVersions), (status = "default", body = Problem))
)]
async fn versions(
    State(app): State<App>,
    Params(query): Params<PriceVersionQuery>,
) -> Result<Json<PriceVersions>> {
    let limit = query.limit.unwrap_or(100);
    let tables = app.billing.prices.versions(query.before, limit).await?;
    let items = tables.iter().map(Into::into).collect();
    Ok(Json(PriceVersions { items }))
}

/// Changes prices: a new version. What was booked keeps its own.
#[utoipa::path(
    patch, path = "/prices", operation_id = "price_edit", tag = "billing",
    request_body = PricesPatch,
    responses((status = 200, body = Prices), (status = "default", body = Problem))
)]
async fn edit(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(patch): Body<PricesPatch>,
) -> Result<Json<Prices>> {
    operator(&principal)?;
    let mut edits = Vec::new();
    for (model, price) in patch.models {
        edits.push(PriceEdit::SetModel(model, price.into()));
    }
    edits.extend(patch.remove_models.into_iter().map(PriceEdit::RemoveModel));
    for (name, price) in patch.compute {
        let rung = Rung::ALL.into_iter().find(|rung| rung.as_str() == name);
        let rung = rung.ok_or_else(|| {
            let text = "rungs are `running`, `paused`, `hibernated` and `archived`";
            Fault::invalid("compute", text)
        })?;
        edits.push(PriceEdit::SetRung(rung, price.into()));
    }
    let table = app.billing.prices.edit(&principal.user, &edits).await?;
    Ok(Json((&*table).into()))
}

/// Replaces all prices: a new version.
#[utoipa::path(
    put, path = "/prices", operation_id = "price_replace", tag = "billing",
    request_body = NewPrices,
    responses((status = 200, body = Prices), (status = "default", body = Problem))
)]
async fn replace(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Body(prices): Body<NewPrices>,
) -> Result<Json<Prices>> {
    operator(&principal)?;
    let wanted = prices.into();
    let table = app.billing.prices.replace(&principal.user, &wanted).await?;
    Ok(Json((&*table).into()))
}

fn operator(principal: &Principal) -> std::result::Result<(), Fault> {
    match principal.scope {
        Scope::Admin => Ok(()),
        Scope::Workspace => Err(Fault::new(
            Code::PermissionDenied,
            "prices hold for every workspace: a key with the admin scope is needed",
        )),
    }
}
