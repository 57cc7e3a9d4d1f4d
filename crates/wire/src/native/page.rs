//! Pages of lists.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use woodfrog_types::Fault;
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::{Page as Domain, PageRequest};

/// One page. Pass `next` as `cursor` for the following one; it is absent on the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<String>,
}

impl<T, U: From<T>> From<Domain<T>> for Page<U> {
    fn from(page: Domain<T>) -> Self {
        Self {
            items: page.items.into_iter().map(Into::into).collect(),
            next: page.next,
        }
    }
}

/// Which page is wanted.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Items of the page, 1 to 100; 100 if absent.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

impl PageQuery {
    /// The domain's request; fails on a limit out of range.
    pub fn request(self) -> Result<PageRequest, Fault> {
        let limit = self.limit.unwrap_or(PAGE_ITEMS_MAX);
        if !(1..=PAGE_ITEMS_MAX).contains(&limit) {
            let message = format!("limit must be between 1 and {PAGE_ITEMS_MAX}");
            return Err(Fault::invalid("limit", message));
        }
        Ok(PageRequest {
            limit,
            cursor: self.cursor,
        })
    }
}
