//! Archives: folders kept as content-addressed chunks in a directory, in memory or in S3.
//!
//! [`Archive::store`] walks a folder and uploads what the store has not got yet, [`Archive::fetch`]
//! makes the folder again, [`Archive::gc`] removes what no archive refers to. What holds:
//! - An archive is there from the moment its root object is, which is written last. A crash before
//!   that leaves chunks that [`Archive::gc`] removes.
//! - Every chunk is named by the BLAKE3 of its content and checked at every read; the root is named
//!   by its own digest and lists the chunks of the manifest.
//! - Memory is bounded by the number of transfers at once, whatever the size of the files.
//! - Nothing outside the target folder can be reached by what a manifest says.
//!
//! Files are cut at every full MiB rather than by content: memory images and databases change in
//! place, a grid keeps holes where they were, needs no rolling hash, and gives random access.
//! Small files share chunks, so that a tree of many costs few round trips (see [`pack`]).
#![forbid(unsafe_code)]

mod archive;
mod chunk;
#[cfg(feature = "conformance")]
pub mod conformance;
mod digest;
mod error;
mod fetch;
mod gc;
mod object;
pub mod pack;
mod port;
mod record;
mod root;
mod upload;
mod walk;
mod write;
mod xattr;

pub use archive::{Archive, Limits, Listed, Stored, Verified};
pub use chunk::CHUNK_BYTES;
pub use digest::{Digest, ManifestId};
pub use error::{BlobError, Result};
pub use gc::Swept;
pub use object::ObjectBlobs;
pub use port::{BlobStore, Found, Key, Kind};
