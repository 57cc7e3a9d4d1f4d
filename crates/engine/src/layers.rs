//! Layers of templates that several servers need: brought to the archive with the first sandbox
//! that needs them, fetched from there where they are missing.

use std::path::PathBuf;
use std::slice;

use woodfrog_types::snapshot::ArchiveId;
use woodfrog_types::{Code, Fault};

use crate::fault;
use crate::inner::Inner;
use crate::sandbox::attic::archive_fault;
use crate::sandbox::launch::image_fault;

mod collect;

pub use collect::CollectedLayers;
pub(crate) use collect::{LayerUse, LayerUses, collect_later};

/// A setting of this name and a layer's digest says where the archive has it.
fn setting(layer: &str) -> String {
    format!("layer.{layer}")
}

/// Sees to it that other servers can have these layers; nothing to do where there are none.
pub(crate) async fn ship(inner: &Inner, layers: &[String]) -> Result<(), Fault> {
    if !inner.attic.is_shared() {
        return Ok(());
    }
    let archive = inner.attic.archive()?;
    for layer in layers {
        let name = setting(layer);
        let known = inner.store.setting_get(&name).await;
        if known.map_err(fault::store)?.is_some() {
            continue;
        }
        let folders = inner.images.paths(slice::from_ref(layer));
        for folder in folders.map_err(image_fault)? {
            let label = inner.attic.layer_label(layer);
            let kept = archive.store(&folder, &label).await;
            let kept = kept.map_err(archive_fault)?;
            // Another server may have been as fast: the same content under another name does no
            // harm.
            let noted = inner.store.setting_init(&name, kept.id.0.as_bytes()).await;
            noted.map_err(fault::store)?;
            tracing::info!(layer, bytes = kept.bytes, "a layer is in the archive");
        }
    }
    Ok(())
}

/// Sees to it that these layers are on this machine.
pub(crate) async fn bring(inner: &Inner, layers: &[String]) -> Result<(), Fault> {
    if !inner.attic.is_shared() {
        return Ok(());
    }
    for layer in layers {
        if inner.images.paths(slice::from_ref(layer)).is_ok() {
            continue;
        }
        // One after the other: two sandboxes of one template need the same.
        let _turn = inner.fetching.lock().await;
        if inner.images.paths(slice::from_ref(layer)).is_err() {
            fetch(inner, layer).await?;
        }
    }
    Ok(())
}

async fn fetch(inner: &Inner, layer: &str) -> Result<(), Fault> {
    let missing = || {
        Fault::new(
            Code::Unavailable,
            format!("the layer {layer} of its template is not on this server, nor in the archive"),
        )
    };
    let kept = inner.store.setting_get(&setting(layer)).await;
    let kept = kept.map_err(fault::store)?.ok_or_else(missing)?;
    let kept = ArchiveId(String::from_utf8(kept).map_err(Fault::internal)?);
    let archive = inner.attic.archive()?;
    let folder = Incoming::make(inner.options.data_dir.join("incoming"))?;
    let bytes = archive.fetch(&kept, &folder.0).await;
    let bytes = bytes.map_err(archive_fault)?;
    let adopted = inner.images.adopt(&folder.0, layer).await;
    adopted.map_err(image_fault)?;
    tracing::info!(layer, bytes, "a layer came from the archive");
    Ok(())
}

/// An empty folder; what is left in it goes when this is dropped, or with the next one.
struct Incoming(PathBuf);

impl Incoming {
    fn make(folder: PathBuf) -> Result<Self, Fault> {
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(Fault::internal)?;
        Ok(Self(folder))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The name under which the store keeps what all servers find in a shared archive.
const MARK: &str = "archive.mark";

/// Finds out whether the servers that share the store share the archive, too: what the first of
/// them put there is to be found.
pub(crate) async fn agree(inner: &Inner) -> Result<(), Fault> {
    let alone = inner.store.node().is_none() || !inner.options.shared_archive;
    if alone || !inner.attic.is_there() {
        return Ok(());
    }
    let archive = inner.attic.archive()?;
    let known = inner.store.setting_get(MARK).await;
    let known = match known.map_err(fault::store)? {
        Some(known) => known,
        None => {
            let folder = Incoming::make(inner.options.data_dir.join("incoming"))?;
            let text =
                "Servers that share a store find out by this whether they share an archive.\n";
            std::fs::write(folder.0.join("mark"), text).map_err(Fault::internal)?;
            let kept = archive
                .store(&folder.0, &inner.attic.layer_label("mark"))
                .await;
            let kept = kept.map_err(archive_fault)?;
            let noted = inner.store.setting_init(MARK, kept.id.0.as_bytes()).await;
            noted.map_err(fault::store)?
        }
    };
    let mark = ArchiveId(String::from_utf8(known).map_err(Fault::internal)?);
    match archive.verify(&mark).await {
        Ok(_) => inner.attic.set_shared(),
        Err(error) => {
            tracing::warn!(%error, "the archive is not that of the other servers: sandboxes cannot go between them and this one");
        }
    }
    Ok(())
}
