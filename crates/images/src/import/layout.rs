//! OCI image layouts and `docker save` archives on disk.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::oci::{self, ConfigDoc, Document, MAX_DOCUMENT, ParsedConfig};
use super::{ImportError, Platform, check_diff_id};
use crate::blocking::Cancelled;
use crate::config::Image;
use crate::digest::Digest;
use crate::progress::{Phase, Progress};
use crate::store::{LayerStore, StoreError};
use crate::unpack::{Limits, Owners, Whiteouts, unpack_into};
use crate::vfs;

/// Indexes that point to indexes.
const MAX_NESTING: usize = 4;

pub(super) struct Import<'a> {
    pub(super) store: &'a LayerStore,
    pub(super) limits: Limits,
    pub(super) progress: &'a Progress,
    pub(super) cancelled: &'a Cancelled,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SavedImage {
    config: String,
    layers: Vec<String>,
}

pub(super) fn import(
    store: &LayerStore,
    path: &Path,
    platform: &Platform,
    limits: Limits,
    progress: &Progress,
    cancelled: &Cancelled,
) -> Result<Image, ImportError> {
    let what = path.display().to_string();
    let context = Import {
        store,
        limits,
        progress,
        cancelled,
    };
    if path.is_dir() {
        let dir = vfs::open_dir(path).map_err(|source| ImportError::Read { what, source })?;
        return context.image(&dir, platform);
    }
    let archive = File::open(path).map_err(|source| ImportError::Read { what, source })?;
    let unpacked = store.workspace()?;
    unpack_into(
        unpacked.path(),
        archive,
        limits,
        (Whiteouts::Literal, Owners::Root),
        progress,
        cancelled,
    )
    .map_err(StoreError::from)?;
    context.image(&vfs::open_dir(unpacked.path())?, platform)
}

impl Import<'_> {
    fn image(&self, dir: &OwnedFd, platform: &Platform) -> Result<Image, ImportError> {
        match vfs::stat_at(dir, "index.json")? {
            Some(_) => self.layout(dir, platform),
            None if vfs::stat_at(dir, "manifest.json")?.is_some() => self.saved(dir, platform),
            None => Err(ImportError::NotAnImage(
                "neither index.json nor manifest.json",
            )),
        }
    }

    fn layout(&self, dir: &OwnedFd, platform: &Platform) -> Result<Image, ImportError> {
        let mut document: Document = oci::parse("index.json", &read(dir, "index.json")?)?;
        for _ in 0..MAX_NESTING {
            let Some(entries) = &document.manifests else {
                break;
            };
            let chosen = oci::choose(entries, platform)?;
            let bytes = verified_document(dir, &chosen.digest)?;
            document = oci::parse(&chosen.digest, &bytes)?;
        }
        let Some(config) = &document.config else {
            return Err(ImportError::Malformed(
                "no manifest within reach of the index".to_owned(),
            ));
        };
        let config: ConfigDoc = oci::parse("config", &verified_document(dir, &config.digest)?)?;
        let ParsedConfig { config, diff_ids } = config.accept(document.layers.len(), platform)?;
        for (index, (layer, diff_id)) in document.layers.iter().zip(&diff_ids).enumerate() {
            oci::check_layer_type(&layer.media_type)?;
            self.report(index, document.layers.len(), &layer.digest);
            let digest = oci::digest(&layer.digest)?;
            let mut blob = open(dir, &blob_path(&digest))?;
            verify(&layer.digest, &digest, &mut blob)?;
            self.layer(&layer.digest, blob, diff_id)?;
        }
        Ok(Image::new(diff_ids, config))
    }

    fn saved(&self, dir: &OwnedFd, platform: &Platform) -> Result<Image, ImportError> {
        let images: Vec<SavedImage> = oci::parse("manifest.json", &read(dir, "manifest.json")?)?;
        let [image] = images.as_slice() else {
            return Err(ImportError::Malformed(format!(
                "{} images in one archive, not one",
                images.len()
            )));
        };
        let config: ConfigDoc = oci::parse("config", &read(dir, &image.config)?)?;
        let ParsedConfig { config, diff_ids } = config.accept(image.layers.len(), platform)?;
        for (index, (layer, diff_id)) in image.layers.iter().zip(&diff_ids).enumerate() {
            self.report(index, image.layers.len(), layer);
            self.layer(layer, open(dir, layer)?, diff_id)?;
        }
        Ok(Image::new(diff_ids, config))
    }

    /// Unpacks one layer and checks it against the configuration.
    pub(super) fn layer(
        &self,
        what: &str,
        blob: impl Read,
        diff_id: &Digest,
    ) -> Result<(), ImportError> {
        let Self {
            store,
            limits,
            progress,
            cancelled,
        } = self;
        if store.origin(diff_id) == Some(crate::store::LayerOrigin::Archive) {
            return Ok(());
        }
        let oci = Whiteouts::Oci;
        match store.unpack_expected(blob, *limits, oci, Some(diff_id), progress, cancelled) {
            Ok(_) => Ok(()),
            Err(StoreError::WrongDigest { actual }) => check_diff_id(what, diff_id, &actual),
            Err(error) => Err(error.into()),
        }
    }

    fn report(&self, index: usize, count: usize, what: &str) {
        let percent = u8::try_from(index * 100 / count.max(1)).ok();
        self.progress
            .emit(Phase::Unpacking, percent, Some(what.to_owned()));
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{digest}")
}

fn open(dir: &OwnedFd, path: &str) -> Result<File, ImportError> {
    vfs::open_file_in_root(dir, vfs::os(path.as_bytes())).map_err(|source| ImportError::Read {
        what: path.to_owned(),
        source,
    })
}

fn read(dir: &OwnedFd, path: &str) -> Result<Vec<u8>, ImportError> {
    let mut bytes = Vec::new();
    open(dir, path)?
        .take(MAX_DOCUMENT + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(ImportError::Malformed(format!(
            "`{path}` is larger than {MAX_DOCUMENT} bytes"
        )));
    }
    Ok(bytes)
}

fn verified_document(dir: &OwnedFd, digest: &str) -> Result<Vec<u8>, ImportError> {
    let parsed = oci::digest(digest)?;
    let bytes = read(dir, &blob_path(&parsed))?;
    check_diff_id(digest, &parsed, &Digest::of(&bytes))?;
    Ok(bytes)
}

/// Reads all of `blob` against its digest and rewinds it.
pub(super) fn verify(what: &str, digest: &Digest, blob: &mut File) -> Result<(), ImportError> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let got = blob.read(&mut buffer)?;
        if got == 0 {
            break;
        }
        hasher.update(&buffer[..got]);
    }
    check_diff_id(what, digest, &Digest::from_hasher(hasher))?;
    blob.seek(io::SeekFrom::Start(0))?;
    Ok(())
}
