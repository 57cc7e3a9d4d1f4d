//! Listings: depth first, siblings in byte order, sent page by page.

use std::fs;

use tokio::sync::mpsc;
use woodfrog_guest_proto::{
    EntryInfo, ErrorCode, FrameKind, ListEnd, ListPage, ListRequest, limits,
};

use super::{Place, entry::describe};
use crate::{
    conn::Conn,
    error::{OpResult, fail, system},
    serve::end,
};

/// Pages a helper may be ahead of the socket.
const PAGES_AHEAD: usize = 2;
/// Bytes of paths and metadata in one page; keeps its JSON below the frame limit even when
/// everything has to be escaped.
const PAGE_BYTES: usize = 96 << 10;
/// Names of one directory; it is sorted as a whole.
const MAX_NAMES: usize = limits::MAX_LIST as usize;

pub(super) async fn list(conn: &Conn, place: Place, request: &ListRequest) -> OpResult<()> {
    let depth = request.depth.max(1);
    let most = u64::from(
        request
            .max_entries
            .unwrap_or(limits::DEFAULT_LIST)
            .min(limits::MAX_LIST),
    );
    let (pages, mut ready) = mpsc::channel(PAGES_AHEAD);
    let walk = tokio::task::spawn_blocking(move || {
        let mut walk = Walk {
            place,
            depth,
            left: most,
            page: Vec::new(),
            bytes: 0,
            pages,
        };
        walk.run()
    });
    let mut entries = 0;
    while let Some(page) = ready.recv().await {
        let page: Vec<EntryInfo> = page;
        entries += page.len() as u64;
        if conn
            .send(FrameKind::Event, &ListPage { entries: page })
            .await
            .is_err()
        {
            return Ok(());
        }
    }
    let outcome = walk
        .await
        .map_err(|_| fail(ErrorCode::Internal, "a helper thread failed"))??;
    let truncated = matches!(outcome, Outcome::Truncated);
    end(conn, &ListEnd { entries, truncated }).await
}

enum Outcome {
    Complete,
    Truncated,
}

struct Walk {
    place: Place,
    depth: u32,
    left: u64,
    page: Vec<EntryInfo>,
    bytes: usize,
    pages: mpsc::Sender<Vec<EntryInfo>>,
}

impl Walk {
    fn run(&mut self) -> OpResult<Outcome> {
        let root = self.place.path.clone();
        let what = format!("path '{root}'");
        let meta = fs::metadata(&root).map_err(|e| system(&what, e))?;
        if !meta.is_dir() {
            return Err(fail(
                ErrorCode::NotADirectory,
                format!("{what} is not a directory"),
            ));
        }
        // The names still to be visited of every directory on the way down.
        let mut stack = vec![(root.clone(), names(&root).map_err(|e| system(&what, e))?)];
        while let Some((dir, rest)) = stack.last_mut() {
            let Some(name) = rest.pop() else {
                stack.pop();
                continue;
            };
            let path = format!("{}/{name}", dir.trim_end_matches('/'));
            // Gone since the directory was read.
            let Ok(meta) = fs::symlink_metadata(&path) else {
                continue;
            };
            if self.left == 0 {
                self.flush();
                return Ok(Outcome::Truncated);
            }
            self.left -= 1;
            if !self.add(describe(
                &path,
                &meta,
                &self.place.names,
                self.place.prefix.as_deref(),
            )) {
                return Ok(Outcome::Truncated);
            }
            if meta.is_dir() && (stack.len() as u32) < self.depth {
                // A directory that cannot be read is listed without content.
                let below = names(&path).unwrap_or_default();
                stack.push((path, below));
            }
        }
        self.flush();
        Ok(Outcome::Complete)
    }

    /// False when nobody listens any more.
    fn add(&mut self, entry: EntryInfo) -> bool {
        let metadata: usize = entry.metadata.iter().map(|(k, v)| k.len() + v.len()).sum();
        self.bytes += entry.path.len() * 2 + metadata;
        self.page.push(entry);
        if self.page.len() < limits::LIST_PAGE && self.bytes < PAGE_BYTES {
            return true;
        }
        self.flush()
    }

    fn flush(&mut self) -> bool {
        self.bytes = 0;
        let page = std::mem::take(&mut self.page);
        page.is_empty() || self.pages.blocking_send(page).is_ok()
    }
}

/// The names in a directory, last first.
fn names(dir: &str) -> std::io::Result<Vec<String>> {
    let mut names: Vec<String> = fs::read_dir(dir)?
        .take(MAX_NAMES)
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}
