//! The removal of layers that nothing needs.
//!
//! Needed is what a build of a template names, what a sandbox of the driver runs on, and what somebody
//! works with at this moment. The last is told by moments: who makes layers, or is about to give some
//! to the driver, says so before ([`LayerUses::begin`]) and until a record or the driver has them. A
//! collection takes no layer that was found or made since the earliest of these began, nor one that
//! was since it began itself; whatever ended before that, the records tell that are read after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use woodfrog_types::Fault;
use woodfrog_types::key::Principal;

use crate::engine::Engine;
use crate::fault;
use crate::images::{Images, LayerOnDisk};
use crate::inner::Inner;
use crate::sandbox::launch::image_fault;
use crate::tasks;

/// Who works with layers now, and since which moment.
#[derive(Default)]
pub(crate) struct LayerUses(Arc<Mutex<Begun>>);

#[derive(Default)]
struct Begun {
    next: u64,
    since: BTreeMap<u64, u64>,
}

/// Keeps the layers that are found, given out or made until it is dropped.
pub(crate) struct LayerUse {
    begun: Arc<Mutex<Begun>>,
    number: u64,
}

fn lock(begun: &Mutex<Begun>) -> MutexGuard<'_, Begun> {
    begun.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LayerUses {
    /// To be called before the layers are looked for.
    pub(crate) fn begin(&self, images: &dyn Images) -> LayerUse {
        let mut begun = lock(&self.0);
        let number = begun.next;
        begun.next += 1;
        begun.since.insert(number, images.moment());
        LayerUse {
            begun: Arc::clone(&self.0),
            number,
        }
    }

    /// Begins a new moment; returns the earliest since which a use counts.
    fn horizon(&self, images: &dyn Images) -> u64 {
        let now = images.next_moment();
        let begun = lock(&self.0);
        begun
            .since
            .values()
            .copied()
            .min()
            .map_or(now, |since| since.min(now))
    }
}

impl Drop for LayerUse {
    fn drop(&mut self) {
        lock(&self.begun).since.remove(&self.number);
    }
}

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectedLayers {
    /// Layers that are gone.
    pub layers: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Bytes of layers that only the cache of build steps keeps.
    pub cached_bytes: u64,
}

impl Engine {
    /// Removes from this machine the layers that nothing needs.
    pub async fn layers_collect(&self, _: &Principal) -> Result<CollectedLayers, Fault> {
        self.inner.accepting()?;
        collect(&self.inner).await
    }
}

/// As [`Engine::layers_collect`], for nobody who waits.
pub(crate) fn collect_later(inner: &Arc<Inner>) {
    let shared = Arc::clone(inner);
    tasks::spawn(&inner.tasks, "layer collection", async move {
        let collected = tokio::select! {
            () = shared.stopping.cancelled() => return,
            collected = collect(&shared) => collected,
        };
        match collected {
            Ok(CollectedLayers { layers: 0, .. }) => {}
            Ok(gone) => {
                tracing::info!(
                    layers = gone.layers,
                    bytes = gone.bytes,
                    "layers that nothing needs are removed"
                );
            }
            Err(fault) => {
                tracing::warn!(
                    error = &fault as &dyn std::error::Error,
                    "layers that nothing needs stay"
                );
            }
        }
    });
}

async fn collect(inner: &Inner) -> Result<CollectedLayers, Fault> {
    let _alone = inner.collecting.lock().await;
    let images = &*inner.images;
    // First: what ends from now on is in the records below, or counts as used since.
    let since = inner.layer_uses.horizon(images);
    let built = inner.store.layers_in_use().await.map_err(fault::store)?;
    let running = inner.driver.layers_in_use().await;
    let mut needed: BTreeSet<String> = running.map_err(fault::driver)?;
    needed.extend(built);
    let cached = inner.store.layers_cached().await.map_err(fault::store)?;
    let cached: BTreeSet<String> = cached.into_iter().collect();
    let mut spare = images.list().await.map_err(image_fault)?;
    spare.retain(|layer| !needed.contains(&layer.name));
    let (kept, doomed) = choose(spare, &cached, inner.options.build_cache_bytes);
    let mut done = CollectedLayers {
        cached_bytes: kept.iter().map(|layer| layer.bytes).sum(),
        ..CollectedLayers::default()
    };
    for layer in doomed {
        let removed = images.remove_unused(&layer.name, since).await;
        if !removed.map_err(image_fault)? {
            continue;
        }
        done.layers += 1;
        done.bytes += layer.bytes;
        // Other servers that share the store may have it still.
        if cached.contains(&layer.name) && inner.store.node().is_none() {
            let forgotten = inner.store.layer_cache_forget(&layer.name).await;
            forgotten.map_err(fault::store)?;
        }
    }
    Ok(done)
}

/// What the cache keeps of layers that nothing else needs, the newest first, and what goes.
fn choose(
    mut spare: Vec<LayerOnDisk>,
    cached: &BTreeSet<String>,
    limit: u64,
) -> (Vec<LayerOnDisk>, Vec<LayerOnDisk>) {
    spare.sort_by(|a, b| (b.made_at, &b.name).cmp(&(a.made_at, &a.name)));
    let mut room = limit;
    spare.into_iter().partition(|layer| {
        let keeps = cached.contains(&layer.name) && layer.bytes <= room;
        if keeps {
            room -= layer.bytes;
        }
        keeps
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use woodfrog_types::Timestamp;

    #[test]
    fn the_cache_keeps_the_newest_within_its_limit() {
        let layer = |name: &str, bytes, at| LayerOnDisk {
            name: name.to_owned(),
            bytes,
            made_at: Timestamp::from_millis(at),
        };
        let spare = vec![
            layer("old", 4, 1),
            layer("new", 5, 3),
            layer("big", 90, 2),
            layer("other", 1, 4),
        ];
        let cached = ["old", "new", "big"].map(str::to_owned);
        let (kept, doomed) = choose(spare, &cached.into(), 9);
        let names = |layers: Vec<LayerOnDisk>| -> Vec<String> {
            layers.into_iter().map(|layer| layer.name).collect()
        };
        assert_eq!(names(kept), ["new", "old"]);
        assert_eq!(names(doomed), ["other", "big"]);
    }
}
