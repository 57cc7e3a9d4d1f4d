//! Lists of sandboxes.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use http::HeaderMap;
use percent_encoding::percent_decode_str;
use woodfrog_engine::SandboxView;
use woodfrog_types::key::Principal;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::sandbox::{Order, SandboxFilter};
use woodfrog_types::{Code, Fault, Timestamp};
use woodfrog_wire::e2b::sandbox::ListedSandbox;

use super::error::Result;
use super::extract::Params;
use super::routes::Routes;
use super::sleep::is_paused;
use crate::state::App;

pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .get("/sandboxes", list_v1)
        .get("/v2/sandboxes", list_v2)
}

/// Items of the first generation's list, which has no pages.
const UNPAGED_ITEMS_MAX: usize = 10_000;

async fn list_v1(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    params: Params,
) -> Result<Json<Vec<ListedSandbox>>> {
    let filter = SandboxFilter {
        metadata: metadata(&params)?,
        ..SandboxFilter::default()
    };
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let limit = PAGE_ITEMS_MAX;
        let request = PageRequest { limit, cursor };
        let page = select(&app, &principal, filter.clone(), request, Wanted::Running).await?;
        all.extend(page.items);
        cursor = page.next;
        if cursor.is_none() || all.len() >= UNPAGED_ITEMS_MAX {
            return Ok(Json(all));
        }
    }
}

async fn list_v2(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    params: Params,
) -> Result<(HeaderMap, Json<Vec<ListedSandbox>>)> {
    let page = params.page()?;
    let wanted = Wanted::of(&params)?;
    let running = app.engine.sandbox_count_running(&principal).await?;
    let mut headers = HeaderMap::new();
    headers.insert("x-total-running", running.into());
    let Some(filter) = filter(&app, &principal, &params).await? else {
        return Ok((headers, Json(Vec::new())));
    };
    let page = select(&app, &principal, filter, page, wanted).await?;
    super::extract::next_token(&mut headers, page.next.as_deref())?;
    Ok((headers, Json(page.items)))
}

/// A page of those in the wanted state. The store knows our states, which are finer and do not say
/// who put a sandbox to sleep: what it gives is looked through.
async fn select(
    app: &App,
    principal: &Principal,
    mut filter: SandboxFilter,
    page: PageRequest,
    wanted: Wanted,
) -> std::result::Result<Page<ListedSandbox>, Fault> {
    filter.states = wanted.states();
    let PageRequest { limit, mut cursor } = page;
    let mut items = Vec::with_capacity(limit);
    loop {
        let request = PageRequest {
            limit: limit - items.len(),
            cursor,
        };
        let found = app
            .engine
            .sandbox_list(principal, filter.clone(), request)
            .await?;
        let matching = found.items.iter().filter(|view| wanted.has(view));
        items.extend(matching.map(|view| ListedSandbox::from(&view.sandbox)));
        cursor = found.next;
        if cursor.is_none() || items.len() >= limit {
            let next = cursor;
            return Ok(Page { items, next });
        }
    }
}

/// The states that a list asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Both,
    Running,
    Paused,
}

impl Wanted {
    fn of(params: &Params) -> std::result::Result<Self, Fault> {
        let states = params.items("state");
        if let Some(bad) = states
            .iter()
            .find(|state| !matches!(**state, "running" | "paused"))
        {
            let shown: String = bad.chars().take(64).collect();
            return Err(Fault::invalid("state", format!("unknown state `{shown}`")));
        }
        let named = |state| states.contains(&state);
        Ok(match (named("running"), named("paused")) {
            (true, false) => Self::Running,
            (false, true) => Self::Paused,
            (true, true) | (false, false) => Self::Both,
        })
    }

    /// Our states among which the wanted ones are.
    fn states(self) -> Vec<&'static str> {
        match self {
            Self::Both | Self::Running => Vec::new(),
            Self::Paused => [
                "paused",
                "hibernating",
                "hibernated",
                "archiving",
                "archived",
            ]
            .into(),
        }
    }

    fn has(self, view: &SandboxView) -> bool {
        match self {
            Self::Both => true,
            Self::Running => !is_paused(view),
            Self::Paused => is_paused(view),
        }
    }
}

/// `None` if the template that is asked for does not exist: then nothing matches.
async fn filter(
    app: &App,
    principal: &Principal,
    params: &Params,
) -> std::result::Result<Option<SandboxFilter>, Fault> {
    let order = match params.get("order") {
        None | Some("desc") => Order::NewestFirst,
        Some("asc") => Order::OldestFirst,
        Some(_) => return Err(Fault::invalid("order", "order must be `asc` or `desc`")),
    };
    let template = match params.get("template") {
        None => None,
        Some(name) => match app.engine.template_resolve(principal, name).await {
            Ok(view) => Some(view.template.id),
            Err(fault) if is_unknown(&fault) => return Ok(None),
            Err(fault) => return Err(fault),
        },
    };
    Ok(Some(SandboxFilter {
        states: Vec::new(),
        metadata: metadata(params)?,
        template,
        started_after: params.parse("startedAfter")?.map(just_before),
        order,
    }))
}

/// What started at that time is wanted too, and a filter's time is exclusive.
fn just_before(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis().saturating_sub(1))
}

fn is_unknown(fault: &Fault) -> bool {
    matches!(fault.code, Code::TemplateNotFound | Code::InvalidArgument)
}

fn metadata(params: &Params) -> std::result::Result<BTreeMap<String, String>, Fault> {
    params
        .get("metadata")
        .map_or(Ok(BTreeMap::new()), parse_metadata)
}

/// A query string whose keys and values are percent-encoded once more.
fn parse_metadata(text: &str) -> std::result::Result<BTreeMap<String, String>, Fault> {
    let bad = || Fault::invalid("metadata", "metadata must be a URL-encoded query string");
    let decode = |part: &str| {
        let once = percent_decode_str(part).decode_utf8().map_err(|_| bad())?;
        Ok::<String, Fault>(once.into_owned())
    };
    let mut pairs = BTreeMap::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let twice = |part: &str| decode(&decode(&part.replace('+', " "))?);
        pairs.insert(twice(key)?, twice(value)?);
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_encoded_twice_inside_the_query() {
        // The query has `a%3Db%252520c`; its value was decoded once already.
        let pairs = parse_metadata("a=b%2520c&k%253D=%2526&plus=x%252By").expect("valid");
        assert_eq!(pairs["a"], "b c");
        assert_eq!(pairs["k="], "&");
        assert_eq!(pairs["plus"], "x+y");
        assert!(parse_metadata("a=%25FF").is_err());
    }
}
