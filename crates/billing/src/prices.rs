//! The prices that hold now, and changes of them. A change is a new version; what was booked keeps
//! the version that priced it.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use woodfrog_core::price;
use woodfrog_store::{Store, StoreError};
use woodfrog_types::usage::{ComputePrice, Cost, ModelPrice, PriceTable, Quantity, Rung};
use woodfrog_types::workspace::UserId;
use woodfrog_types::{Code, Fault, Timestamp};

use crate::fault;

/// How soon a change that another server on the same database made holds here.
const REFRESH: Duration = Duration::from_secs(10);
/// How often a change is tried anew because another one was first.
const RETRIES: usize = 5;
/// Versions in one list.
const VERSIONS_MAX: usize = 100;

/// One change of the prices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PriceEdit {
    SetModel(String, ModelPrice),
    RemoveModel(String),
    SetRung(Rung, ComputePrice),
}

/// The prices. A cheap clone; all clones change together.
#[derive(Clone)]
pub struct Prices {
    store: Arc<dyn Store>,
    now: Arc<RwLock<Arc<PriceTable>>>,
}

impl Prices {
    /// The built-in table, until [`Prices::load`].
    pub fn new(store: Arc<dyn Store>) -> Self {
        let now = Arc::new(RwLock::new(Arc::new(price::built_in())));
        Self { store, now }
    }

    /// Reads the latest table; a store without one gets the one that is built in.
    pub async fn load(&self) -> Result<Arc<PriceTable>, Fault> {
        let table = self.fetch(None).await?;
        Ok(self.set(table))
    }

    /// The table that holds now.
    pub fn table(&self) -> Arc<PriceTable> {
        let table = self.now.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&table)
    }

    /// What a quantity costs now, and by which version.
    pub fn cost(&self, quantity: &Quantity) -> (Cost, u64) {
        let table = self.table();
        (price::cost(&table, quantity), table.version)
    }

    /// A version; the one that holds now if none is named.
    pub async fn fetch(&self, version: Option<u64>) -> Result<PriceTable, Fault> {
        let found = self
            .store
            .price_fetch(version)
            .await
            .map_err(fault::store)?;
        match (found, version) {
            (Some(table), _) => Ok(table),
            (None, None) => begin(&*self.store).await,
            (None, Some(_)) => {
                let text = "there is no such version of the prices";
                Err(Fault::new(Code::NotFound, text))
            }
        }
    }

    /// Versions below `before`, the latest first.
    pub async fn versions(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<PriceTable>, Fault> {
        let limit = limit.clamp(1, VERSIONS_MAX);
        let listed = self.store.price_list(before, limit).await;
        listed.map_err(fault::store)
    }

    /// Changes the table that holds now. A change that changes nothing makes no version.
    pub async fn edit(&self, by: &UserId, edits: &[PriceEdit]) -> Result<Arc<PriceTable>, Fault> {
        self.change(by, |table| {
            for edit in edits {
                apply(table, edit)?;
            }
            Ok(())
        })
        .await
    }

    /// Replaces all prices.
    pub async fn replace(
        &self,
        by: &UserId,
        wanted: &PriceTable,
    ) -> Result<Arc<PriceTable>, Fault> {
        self.change(by, |table| {
            table.models.clone_from(&wanted.models);
            table.compute = wanted.compute;
            Ok(())
        })
        .await
    }

    async fn change(
        &self,
        by: &UserId,
        change: impl Fn(&mut PriceTable) -> Result<(), Fault>,
    ) -> Result<Arc<PriceTable>, Fault> {
        for _ in 0..RETRIES {
            let old = self.fetch(None).await?;
            let mut table = old.clone();
            change(&mut table)?;
            price::validate(&table)?;
            if table != old {
                table.version += 1;
                table.created_at = Timestamp::now();
                table.created_by = Some(by.clone());
                match self.store.price_insert(&table).await {
                    Ok(()) => {}
                    Err(StoreError::Conflict { .. }) => continue,
                    Err(error) => return Err(fault::store(error)),
                }
            }
            return Ok(self.set(table));
        }
        Err(Fault::new(
            Code::Conflict,
            "the prices are being changed by others; try again",
        ))
    }

    /// Never back to an older version.
    fn set(&self, table: PriceTable) -> Arc<PriceTable> {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        if table.version > now.version {
            *now = Arc::new(table);
        }
        Arc::clone(&now)
    }

    pub(crate) async fn watch(&self, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(REFRESH);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.load().await {
                tracing::warn!(%error, "the prices cannot be read");
            }
        }
    }
}

async fn begin(store: &dyn Store) -> Result<PriceTable, Fault> {
    match store.price_insert(&price::built_in()).await {
        // Another server may have been first.
        Ok(()) | Err(StoreError::Conflict { .. }) => {}
        Err(error) => return Err(fault::store(error)),
    }
    let table = store.price_fetch(None).await.map_err(fault::store)?;
    table.ok_or_else(|| Fault::internal("the prices were stored and are not there"))
}

fn apply(table: &mut PriceTable, edit: &PriceEdit) -> Result<(), Fault> {
    match edit {
        PriceEdit::SetModel(name, price) => {
            table.models.insert(name.clone(), *price);
        }
        PriceEdit::RemoveModel(name) => {
            if table.models.remove(name).is_none() {
                let shown: String = name.chars().take(100).collect();
                return Err(Fault::new(
                    Code::NotFound,
                    format!("no price of model `{shown}`"),
                ));
            }
        }
        PriceEdit::SetRung(rung, price) => {
            let place = Rung::ALL.iter().position(|one| one == rung);
            if let Some(slot) = place.and_then(|place| table.compute.get_mut(place)) {
                *slot = *price;
            }
        }
    }
    Ok(())
}
