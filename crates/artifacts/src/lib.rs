//! Files that runs leave: which they are, and where their bytes are kept.
//!
//! What a run changed is told by a sandbox's writable layer, compared with a list of what was in it
//! when the run began ([`Baseline`]). The layer is not trusted: it is read beneath its descriptor,
//! no link in it is followed, and nothing but regular files is opened. Bytes go to a directory of
//! the server in pieces of bounded size ([`Files`]), whatever the size of the files.
#![forbid(unsafe_code)]

mod baseline;
mod changes;
mod files;
mod layer;

pub use baseline::Baseline;
pub use changes::{Change, Changed, changes};
pub use files::{Content, Files, FilesError, Kept, Put};
pub use layer::{ENTRIES_MAX, Layer, LayerError, Mark};
