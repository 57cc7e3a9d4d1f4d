//! Page cursors: the sort key and id of a page's last item, so that inserts before or after it
//! move nothing. Callers see hex and must not look inside.

use crate::{Result, StoreError};
use woodfrog_types::limits::PAGE_ITEMS_MAX;
use woodfrog_types::page::PageRequest;

/// A cursor longer than this was not given out by us.
const CURSOR_BYTES_MAX: usize = 4096;

/// The list that a cursor belongs to; one list's cursor is refused by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    Sandboxes,
    Templates,
    Builds,
    Snapshots,
    SandboxSessions,
    Secrets,
    Volumes,
    Sessions,
    PersistedSessions,
    Runs,
    Usage,
    Artifacts,
    Deliveries,
    Workspaces,
    Audit,
}

impl List {
    const fn tag(self) -> &'static str {
        match self {
            Self::Sandboxes => "s1",
            Self::Templates => "t1",
            Self::Builds => "b1",
            Self::Snapshots => "n1",
            Self::SandboxSessions => "e1",
            Self::Secrets => "x1",
            Self::Volumes => "v1",
            Self::Sessions => "g1",
            Self::PersistedSessions => "p1",
            Self::Runs => "r1",
            Self::Usage => "u1",
            Self::Artifacts => "f1",
            Self::Deliveries => "d1",
            Self::Workspaces => "w1",
            Self::Audit => "a1",
        }
    }
}

/// The cursor after the item with this sort key and id.
pub fn encode(list: List, key: &str, id: &str) -> String {
    hex::encode(format!("{}\0{key}\0{id}", list.tag()))
}

/// The sort key and id in a cursor. `InvalidCursor` if it is not one of that list.
pub fn decode(list: List, cursor: &str) -> Result<(String, String)> {
    let parsed = open(list, cursor).and_then(|text| {
        // An id never holds NUL, a name might.
        let (key, id) = text.rsplit_once('\0')?;
        Some((key.to_owned(), id.to_owned()))
    });
    parsed.ok_or(StoreError::InvalidCursor)
}

/// [`decode`] for lists that are sorted by a time in milliseconds. The id may be any text.
pub fn decode_time(list: List, cursor: &str) -> Result<(i64, String)> {
    let parsed = open(list, cursor).and_then(|text| {
        let (key, id) = text.split_once('\0')?;
        Some((key.parse().ok()?, id.to_owned()))
    });
    parsed.ok_or(StoreError::InvalidCursor)
}

/// The place behind which a list that goes backwards goes on.
pub fn decode_place(list: List, page: &PageRequest) -> Result<Option<u64>> {
    let Some(cursor) = page.cursor.as_deref() else {
        return Ok(None);
    };
    let (place, _) = decode_time(list, cursor)?;
    let place = u64::try_from(place).map_err(|_| StoreError::InvalidCursor)?;
    Ok(Some(place))
}

/// How many items a page holds: what was asked for, at least 1, at most [`PAGE_ITEMS_MAX`].
pub fn page_items(request: &PageRequest) -> usize {
    request.limit.clamp(1, PAGE_ITEMS_MAX)
}

/// What is behind the tag.
fn open(list: List, cursor: &str) -> Option<String> {
    if cursor.len() > CURSOR_BYTES_MAX {
        return None;
    }
    let text = String::from_utf8(hex::decode(cursor).ok()?).ok()?;
    let rest = text.strip_prefix(list.tag())?.strip_prefix('\0')?;
    Some(rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_any_key() {
        for key in ["", "name", "with\0nul", "ü"] {
            let cursor = encode(List::Templates, key, "id");
            let (got, id) = decode(List::Templates, &cursor).unwrap();
            assert_eq!((got.as_str(), id.as_str()), (key, "id"));
        }
    }

    #[test]
    fn round_trips_any_id_behind_a_time() {
        for id in ["", "id", "with\0nul", "ü"] {
            let cursor = encode(List::PersistedSessions, "-5", id);
            let (at, got) = decode_time(List::PersistedSessions, &cursor).unwrap();
            assert_eq!((at, got.as_str()), (-5, id));
        }
    }

    #[test]
    fn refuses_what_it_did_not_make() {
        let other = encode(List::Builds, "5", "id");
        let long = "00".repeat(CURSOR_BYTES_MAX);
        for bad in ["", "zz", "00", "7331", other.as_str(), long.as_str()] {
            assert!(decode(List::Sandboxes, bad).is_err(), "{bad}");
        }
        let named = encode(List::Sandboxes, "not a number", "id");
        assert!(decode_time(List::Sandboxes, &named).is_err());
    }
}
