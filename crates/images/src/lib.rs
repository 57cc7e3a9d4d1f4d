//! Where templates' root filesystems come from: a store of immutable layers on disk, the `base`
//! template made from the distribution's packages, imports (tarballs, OCI layouts, registries) and
//! the file-system half of template build steps.
//!
//! Knows nothing about the API, the state store or the engine. Everything read from archives,
//! registries and build contexts is hostile until proven otherwise: names are resolved beneath a
//! directory descriptor, sizes and counts are bounded, digests are checked before use.
//!
//! Async functions do their work on blocking threads; dropping their future stops the work soon
//! after and leaves nothing half made in the store.
#![forbid(unsafe_code)]

mod base;
mod blocking;
mod build;
mod config;
mod digest;
mod import;
mod progress;
mod stack;
mod store;
mod unpack;
mod vfs;

pub use base::{BaseBuilder, BaseError, BaseOptions};
pub use build::basics::{BasicsError, ensure_e2b_basics};
pub use build::copy::{CopyError, CopySpec, prepare_copy_layer};
pub use build::step::{BuildStep, StepError, cache_key};
pub use config::{IMAGE_FORMAT_VERSION, Image, ImageConfig};
pub use digest::{Digest, DigestError};
pub use import::registry::{PullOptions, RegistryAuth, pull_registry};
pub use import::{ImportError, Platform, import_oci_layout, import_rootfs_tar};
pub use progress::{Event, Phase, Progress};
pub use stack::{LayerStack, StackError, StackKind, read_file};
pub use store::{Layer, LayerOrigin, LayerStore, StoreError};
pub use unpack::{Limits, UnpackError, UnpackStats, Whiteouts};
