//! Directory entries: from the guest's words to the wire's.

use woodfrog_guest_proto as guest;
use woodfrog_wire::envd::{EntryInfo, EventType, FileType, FilesystemEvent};
use woodfrog_wire::envd::{permissions_text, rfc3339_nanos};

/// File metadata lives in extended attributes under this prefix.
pub(crate) const XATTR_PREFIX: &str = "user.e2b.";

pub(crate) fn at(path: String, user: Option<String>) -> guest::PathRequest {
    guest::PathRequest {
        path,
        user,
        xattr_prefix: Some(XATTR_PREFIX.to_owned()),
    }
}

/// A symlink has the type and the permission bits of what it leads to, and everything else of
/// its own.
pub(crate) fn entry(entry: guest::EntryInfo) -> EntryInfo {
    let (kind, mode) = match &entry.link {
        None => (file_type(entry.kind), entry.mode),
        Some(guest::LinkInfo {
            target: Some(target),
            ..
        }) => (file_type(target.kind), target.mode),
        Some(guest::LinkInfo { target: None, .. }) => (FileType::Unspecified, 0),
    };
    let symlink_target = entry.link.map(|link| match link.target {
        Some(target) => target.path,
        None => entry.path.clone(),
    });
    EntryInfo {
        name: entry.name,
        kind,
        path: entry.path,
        size: entry.size,
        mode: mode & 0o777,
        permissions: permissions_text(entry.mode),
        owner: entry.owner,
        group: entry.group,
        modified_time: rfc3339_nanos(entry.mtime_ns),
        symlink_target,
        metadata: entry.metadata,
    }
}

fn file_type(kind: guest::EntryKind) -> FileType {
    match kind {
        guest::EntryKind::File => FileType::File,
        guest::EntryKind::Directory => FileType::Directory,
        guest::EntryKind::Symlink => FileType::Symlink,
        guest::EntryKind::Other => FileType::Unspecified,
    }
}

/// `None` for what has no event on the wire: the kernel dropped events.
pub(crate) fn event(event: guest::WatchEvent) -> Option<FilesystemEvent> {
    let kind = match event.kind {
        guest::WatchKind::Create => EventType::Create,
        guest::WatchKind::Write => EventType::Write,
        guest::WatchKind::Remove => EventType::Remove,
        guest::WatchKind::Rename => EventType::Rename,
        guest::WatchKind::Chmod => EventType::Chmod,
        guest::WatchKind::Overflow => return None,
    };
    let has_entry = matches!(
        kind,
        EventType::Create | EventType::Write | EventType::Chmod
    );
    let entry = event.entry.filter(|_| has_entry).map(entry);
    Some(FilesystemEvent {
        name: event.name,
        kind,
        entry,
    })
}
