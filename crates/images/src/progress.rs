//! Telling callers how far long work is.

use std::fmt;
use std::sync::Arc;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for another process that makes the same thing.
    Waiting,
    /// Reading package lists.
    Resolving,
    /// Fetching packages, manifests or layers.
    Downloading,
    /// Installing packages.
    Installing,
    /// Tidying up and compressing the result.
    Finishing,
    /// Unpacking an archive into the layer store.
    Unpacking,
}

impl Phase {
    /// A word for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Resolving => "resolving",
            Self::Downloading => "downloading",
            Self::Installing => "installing",
            Self::Finishing => "finishing",
            Self::Unpacking => "unpacking",
        }
    }
}

/// One step forward.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub phase: Phase,
    /// Of the whole operation, 0 to 100, never falling; `None` where the total is unknown.
    pub percent: Option<u8>,
    /// The package, layer or file at hand.
    pub item: Option<String>,
}

/// Where events go. Called from blocking threads: it must not block for long.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(Event) + Send + Sync>);

impl Progress {
    /// Events go to `sink`.
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(sink))
    }

    /// Nobody is listening.
    pub fn none() -> Self {
        Self::new(|_| ())
    }

    pub(crate) fn emit(&self, phase: Phase, percent: Option<u8>, item: Option<String>) {
        (self.0)(Event {
            phase,
            percent,
            item,
        });
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
