//! The port of places: directories whose content has a limit.

use std::io;
use std::path::Path;

/// Makes and removes places. The file system keeps their limits, whoever writes there. All places
/// are on one file system, where they can be renamed; files cannot be renamed out of one.
pub trait Places: std::fmt::Debug + Send + Sync + 'static {
    /// Makes an empty place at `path`, which must not exist; what is below it never takes more
    /// than `bytes`.
    fn make(&self, path: &Path, bytes: u64) -> io::Result<()>;

    /// What is below the place takes so many bytes, or took lately.
    fn used(&self, path: &Path) -> io::Result<u64>;

    /// Removes a place with all that is below it.
    fn remove(&self, path: &Path) -> io::Result<()>;
}
