//! Which sandboxes a list shows.

use std::collections::BTreeMap;

use woodfrog_types::sandbox::{Sandbox, SandboxFilter};

/// Whether every wanted pair is in `present`.
pub fn metadata_matches(
    wanted: &BTreeMap<String, String>,
    present: &BTreeMap<String, String>,
) -> bool {
    wanted
        .iter()
        .all(|(key, value)| present.get(key) == Some(value))
}

/// Whether the filter shows this sandbox.
pub fn matches(filter: &SandboxFilter, sandbox: &Sandbox) -> bool {
    metadata_matches(&filter.metadata, &sandbox.metadata)
        && filter
            .template
            .as_ref()
            .is_none_or(|template| *template == sandbox.template)
        && filter
            .started_after
            .is_none_or(|after| sandbox.started_at > after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_pair_must_be_there() {
        let present = map(&[("a", "1"), ("b", "2")]);
        assert!(metadata_matches(&map(&[]), &present));
        assert!(metadata_matches(&map(&[("a", "1")]), &present));
        assert!(!metadata_matches(&map(&[("a", "2")]), &present));
        assert!(!metadata_matches(&map(&[("a", "1"), ("c", "")]), &present));
    }
}
