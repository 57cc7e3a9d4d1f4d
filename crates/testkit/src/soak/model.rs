//! What must be there.

use std::collections::BTreeMap;
use std::fmt::Write;

/// A sandbox.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) id: String,
    /// Hash of what its program holds.
    pub(super) memory: String,
    /// File → the number in it.
    pub(super) files: BTreeMap<String, u64>,
}

impl Known {
    pub(super) fn new(id: String, memory: String) -> Self {
        let files = BTreeMap::new();
        Self { id, memory, files }
    }

    /// Its files as a shell lists them.
    pub(super) fn listing(&self) -> String {
        let mut text = String::new();
        for (name, number) in &self.files {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{name}={number}");
        }
        text
    }
}

/// A snapshot, and what a sandbox made of it has.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) id: String,
    pub(super) content: Known,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) boxes: Vec<Known>,
    pub(super) taken: Vec<Taken>,
}

impl Model {
    pub(super) fn box_ids(&self) -> Vec<String> {
        self.boxes.iter().map(|known| known.id.clone()).collect()
    }

    pub(super) fn taken_ids(&self) -> Vec<String> {
        self.taken.iter().map(|taken| taken.id.clone()).collect()
    }
}
