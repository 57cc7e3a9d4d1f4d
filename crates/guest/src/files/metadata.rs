//! Metadata kept in extended attributes below a prefix.

use std::{collections::BTreeMap, fs::File, os::fd::AsFd};

use rustix::fs::{XattrFlags, flistxattr, fremovexattr, fsetxattr, getxattr, listxattr};
use woodfrog_guest_proto::{ErrorCode, limits};

use crate::error::{OpResult, fail, system};

/// Names of all attributes of one file; the kernel allows no more.
const NAMES_MAX: usize = 64 << 10;

/// What is there and readable; an attribute that is not text is left out.
pub(super) fn read(path: &str, prefix: &str) -> BTreeMap<String, String> {
    let mut names = vec![0; NAMES_MAX];
    let len = listxattr(path, &mut names[..]).unwrap_or(0);
    let mut found = BTreeMap::new();
    for name in below(names.get(..len).unwrap_or_default(), prefix).take(limits::MAX_METADATA) {
        let mut value = vec![0; limits::MAX_METADATA_VALUE];
        let Ok(len) = getxattr(path, &name, &mut value[..]) else {
            continue;
        };
        value.truncate(len);
        if let (Some(key), Ok(value)) = (name.strip_prefix(prefix), String::from_utf8(value)) {
            found.insert(key.to_owned(), value);
        }
    }
    found
}

/// Makes the attributes below the prefix be exactly these.
pub(super) fn replace(
    file: &File,
    prefix: &str,
    wanted: &BTreeMap<String, String>,
) -> OpResult<()> {
    if wanted.len() > limits::MAX_METADATA
        || wanted
            .values()
            .any(|v| v.len() > limits::MAX_METADATA_VALUE)
    {
        return Err(fail(ErrorCode::TooLarge, "too much metadata"));
    }
    let mut names = vec![0; NAMES_MAX];
    let len = flistxattr(file.as_fd(), &mut names[..]).unwrap_or(0);
    for name in below(names.get(..len).unwrap_or_default(), prefix) {
        if name
            .strip_prefix(prefix)
            .is_some_and(|key| !wanted.contains_key(key))
        {
            fremovexattr(file.as_fd(), &name).map_err(|e| system("metadata", e))?;
        }
    }
    for (key, value) in wanted {
        let name = format!("{prefix}{key}");
        fsetxattr(file.as_fd(), &name, value.as_bytes(), XattrFlags::empty())
            .map_err(|e| system("metadata", e))?;
    }
    Ok(())
}

fn below<'a>(names: &'a [u8], prefix: &'a str) -> impl Iterator<Item = String> + 'a {
    names
        .split(|b| *b == 0)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(move |name| name.len() > prefix.len() && name.starts_with(prefix))
        .map(str::to_owned)
}
