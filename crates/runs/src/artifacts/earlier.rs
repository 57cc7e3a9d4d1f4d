//! Files that were kept while their run went on, until the look at its end comes by them.

use std::collections::BTreeMap;

use woodfrog_types::artifact::{Artifact, ArtifactFilter};
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::PageRequest;
use woodfrog_types::run::Run;

use crate::service::Inner;

/// Artifacts by path, in the order of the walk: name by name.
#[derive(Debug, Default)]
pub(super) struct Earlier(BTreeMap<Vec<String>, Artifact>);

/// Those that a run has.
pub(super) async fn load(inner: &Inner, run: &Run) -> woodfrog_store::Result<Earlier> {
    let filter = ArtifactFilter {
        run: Some(run.id.clone()),
        ..ArtifactFilter::default()
    };
    let mut found = Earlier::default();
    let mut cursor = None;
    loop {
        let page = PageRequest {
            limit: PAGE_ITEMS_MAX,
            cursor,
        };
        let listed = inner.store.artifact_list(&run.workspace, &filter, &page);
        let listed = listed.await?;
        listed.items.into_iter().for_each(|one| found.add(one));
        cursor = listed.next;
        if cursor.is_none() {
            return Ok(found);
        }
    }
}

impl Earlier {
    fn add(&mut self, artifact: Artifact) {
        self.0.insert(key(&artifact.path), artifact);
    }

    /// The file is there, and kept.
    pub(super) fn confirm(&mut self, path: &str) {
        self.0.remove(&key(path));
    }

    /// Which one has to go so that the file at `path` can be kept, while the walk is there. One that
    /// the walk has passed by is not to be kept. Of those that it may yet come to the last goes,
    /// because the first ones by path are kept.
    pub(super) fn make_room(&mut self, path: &str) -> Option<Artifact> {
        let passed = self.0.first_key_value()?.0 < &key(path);
        let (_, old) = match passed {
            true => self.0.pop_first()?,
            false => self.0.pop_last()?,
        };
        Some(old)
    }

    /// One of those that are left.
    pub(super) fn pop(&mut self) -> Option<Artifact> {
        self.0.pop_first().map(|(_, old)| old)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn key(path: &str) -> Vec<String> {
    path.split('/').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use woodfrog_core::artifact;
    use woodfrog_types::{ArtifactId, RunId, Timestamp, WorkspaceId};

    use super::*;

    fn with(paths: &[&str]) -> Earlier {
        let mut earlier = Earlier::default();
        for path in paths {
            earlier.add(Artifact {
                id: ArtifactId::generate(),
                workspace: WorkspaceId::generate(),
                run: RunId::generate(),
                thread: "t".to_owned(),
                kind: artifact::kind(path),
                title: artifact::title(path),
                content_type: artifact::content_type(path),
                size: 1,
                digest: String::new(),
                review: None,
                created_at: Timestamp::from_millis(0),
                path: (*path).to_owned(),
            });
        }
        earlier
    }

    #[test]
    fn what_was_passed_by_makes_room_first() {
        let mut earlier = with(&["/a/z", "/a-b", "/c", "/d"]);
        earlier.confirm("/a-b");
        let mut gone = |at: &str| earlier.make_room(at).map(|one| one.path);
        assert_eq!(gone("/b").as_deref(), Some("/a/z"));
        assert_eq!(gone("/b").as_deref(), Some("/d"), "the last that may come");
        assert_eq!(gone("/b").as_deref(), Some("/c"));
        assert_eq!(gone("/b"), None);
    }
}
