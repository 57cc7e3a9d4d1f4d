//! Describes directory entries.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt,
    path::Path,
};

use woodfrog_guest_proto::{EntryInfo, EntryKind, LinkInfo, LinkTarget};

use super::metadata;
use crate::{
    error::{OpResult, system},
    users::Names,
};

/// The entry at an absolute path.
pub(super) fn entry(path: &str, names: &Names, prefix: Option<&str>) -> OpResult<EntryInfo> {
    let meta = fs::symlink_metadata(path).map_err(|e| system(&format!("path '{path}'"), e))?;
    Ok(describe(path, &meta, names, prefix))
}

pub(super) fn describe(
    path: &str,
    meta: &Metadata,
    names: &Names,
    prefix: Option<&str>,
) -> EntryInfo {
    let name = Path::new(path)
        .file_name()
        .map_or("/".into(), |n| n.to_string_lossy());
    let kind = kind_of(meta);
    let attributes = prefix.filter(|_| matches!(kind, EntryKind::File | EntryKind::Directory));
    EntryInfo {
        name: name.into_owned(),
        path: path.to_owned(),
        kind,
        size: meta.len(),
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        owner: names.user_name(meta.uid()),
        group: names.group_name(meta.gid()),
        mtime_ns: meta
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(meta.mtime_nsec()),
        link: (kind == EntryKind::Symlink).then(|| link(path)),
        metadata: attributes
            .map(|prefix| metadata::read(path, prefix))
            .unwrap_or_default(),
    }
}

fn link(path: &str) -> LinkInfo {
    let text = fs::read_link(path)
        .map(|t| t.to_string_lossy().into_owned())
        .unwrap_or_default();
    let target = fs::canonicalize(path).ok().and_then(|target| {
        let meta = fs::metadata(&target).ok()?;
        Some(LinkTarget {
            path: target.to_string_lossy().into_owned(),
            kind: kind_of(&meta),
            mode: meta.mode(),
            size: meta.len(),
        })
    });
    LinkInfo { text, target }
}

fn kind_of(meta: &Metadata) -> EntryKind {
    let kind = meta.file_type();
    if kind.is_file() {
        EntryKind::File
    } else if kind.is_dir() {
        EntryKind::Directory
    } else if kind.is_symlink() {
        EntryKind::Symlink
    } else {
        EntryKind::Other
    }
}
