//! One life of a sandbox's processes, as those see it who read from them.

use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

/// From a start of the processes to their end, or to a sleep that ends streams.
#[derive(Debug, Default)]
pub struct Life {
    over: CancellationToken,
    anew: OnceLock<&'static str>,
}

impl Life {
    /// One that is over when `over` is cancelled.
    pub fn until(over: CancellationToken) -> Self {
        Self {
            over,
            anew: OnceLock::new(),
        }
    }

    /// It is over.
    pub fn end(&self) {
        self.over.cancel();
    }

    /// It is over, and another one follows: the processes are gone, for this reason.
    pub fn end_anew(&self, why: &'static str) {
        // The first reason stays.
        let _ = self.anew.set(why);
        self.over.cancel();
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Resolves when it is over.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Why its processes are gone though the sandbox goes on; `None` if they may still be there.
    pub fn anew(&self) -> Option<&'static str> {
        self.anew.get().copied()
    }
}
