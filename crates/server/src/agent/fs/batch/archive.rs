//! Archives as strangers send them: every name is checked and every length has a limit.

use std::io::{self, Read};

use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::too_large;
use crate::agent::problem::{Failure, Result};

/// Entries of one archive, headers that only say something about others included.
const ENTRIES_MAX: usize = 200_000;
/// Bytes of content in one archive.
const BYTES_MAX: u64 = 64 << 30;
/// Bytes of what an archive says about one entry beside its header.
const EXTENSION_MAX: u64 = 64 << 10;
/// Bytes of one entry's path.
const PATH_MAX: usize = 4096;
/// Permission bits that are taken over: none that change who a program runs as.
const MODE_MASK: u32 = 0o777;

/// One thing to unpack.
pub(super) struct Item<'a> {
    /// Relative, without `.` and `..`; empty for the archive's own root.
    pub(super) path: String,
    pub(super) content: Content<'a>,
}

pub(super) enum Content<'a> {
    Directory,
    File { mode: u32, bytes: &'a mut dyn Read },
}

/// Calls `unpack` for each thing in an archive, in its order. Takes the archive apart by its raw
/// entries, so that no name is read into memory before its length is known to be harmless.
pub(super) fn each(
    reader: impl Read,
    mut unpack: impl FnMut(Item<'_>) -> Result<()>,
) -> Result<()> {
    let mut archive = Archive::new(reader);
    let entries = archive.entries().map_err(damaged)?.raw(true);
    let (mut long_name, mut seen, mut bytes) = (None, 0, 0_u64);
    for entry in entries {
        let mut entry = entry.map_err(damaged)?;
        seen += 1;
        if seen > ENTRIES_MAX {
            return Err(too_large(format!(
                "an archive has at most {ENTRIES_MAX} entries"
            )));
        }
        let kind = entry.header().entry_type();
        match kind {
            EntryType::GNULongName => {
                let name = extension(&mut entry)?;
                let end = name.iter().position(|byte| *byte == 0);
                long_name = Some(
                    name.get(..end.unwrap_or(name.len()))
                        .unwrap_or(&[])
                        .to_vec(),
                );
                continue;
            }
            EntryType::XHeader => {
                if let Some(name) = pax_path(&extension(&mut entry)?)? {
                    long_name = Some(name);
                }
                continue;
            }
            // What holds for a whole archive: comments, as far as files go.
            EntryType::XGlobalHeader => continue,
            _ => {}
        }
        let name = long_name
            .take()
            .unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = clean(&name)?;
        bytes = bytes.saturating_add(entry.size());
        if bytes > BYTES_MAX {
            return Err(too_large(format!(
                "an archive has at most {BYTES_MAX} bytes of content"
            )));
        }
        unpack(item(path, kind, &mut entry)?)?;
    }
    Ok(())
}

fn item<'a, R: Read>(
    path: String,
    kind: EntryType,
    entry: &'a mut Entry<'_, R>,
) -> Result<Item<'a>> {
    let content = match kind {
        EntryType::Directory => Content::Directory,
        EntryType::Regular | EntryType::Continuous if !path.is_empty() => {
            let mode = entry.header().mode().map_err(damaged)? & MODE_MASK;
            Content::File { mode, bytes: entry }
        }
        _ => {
            let what = match kind {
                EntryType::Symlink | EntryType::Link => "links",
                EntryType::GNUSparse => "sparse files",
                EntryType::Regular | EntryType::Continuous => "files without a name",
                _ => "devices and other special files",
            };
            return Err(Failure::invalid(format_args!(
                "`{path}`: an archive must not have {what}"
            )));
        }
    };
    Ok(Item { path, content })
}

/// What an entry says about the next one.
fn extension<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>> {
    if entry.size() > EXTENSION_MAX {
        return Err(too_large(format!(
            "a header of the archive is larger than {EXTENSION_MAX} bytes"
        )));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(damaged)?;
    Ok(bytes)
}

/// The path in a PAX header. A size there is one that the ordinary header cannot hold.
fn pax_path(bytes: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut path = None;
    for record in PaxExtensions::new(bytes) {
        let record = record.map_err(damaged)?;
        match record.key_bytes() {
            b"path" => path = Some(record.value_bytes().to_vec()),
            b"size" => {
                let message = "an archive must not have files of 8 GiB and more in PAX form; \
                               use GNU tar's own";
                return Err(Failure::invalid(message));
            }
            key if key.starts_with(b"GNU.sparse.") => {
                return Err(Failure::invalid("an archive must not have sparse files"));
            }
            _ => {}
        }
    }
    Ok(path)
}

/// A name as a path below the target.
fn clean(name: &[u8]) -> Result<String> {
    let shown = || {
        String::from_utf8_lossy(name)
            .chars()
            .take(200)
            .collect::<String>()
    };
    let refuse = |why: &str| Failure::invalid(format_args!("`{}`: {why}", shown()));
    if name.len() > PATH_MAX {
        return Err(refuse("a path in the archive is too long"));
    }
    let text = std::str::from_utf8(name).map_err(|_| refuse("a path must be UTF-8"))?;
    if text.starts_with('/') {
        return Err(refuse("a path in the archive must be relative"));
    }
    if text.contains('\0') {
        return Err(refuse("a path must not contain NUL"));
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(refuse("a path in the archive must not contain `..`")),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// The archive, or the way it arrives, is broken.
pub(super) fn damaged(error: io::Error) -> Failure {
    Failure::invalid(format_args!("the archive cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    fn header(kind: EntryType, name: &[u8], size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o4755);
        // Names that the crate itself would refuse to write.
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        header
    }

    /// A path, and a file's mode and content.
    type Found = (String, Option<(u32, String)>);

    fn walk(archive: &[u8]) -> std::result::Result<Vec<Found>, String> {
        let mut found = Vec::new();
        each(archive, |item| {
            found.push(match item.content {
                Content::Directory => (item.path, None),
                Content::File { mode, bytes } => {
                    let mut text = String::new();
                    bytes.read_to_string(&mut text).map_err(damaged)?;
                    (item.path, Some((mode, text)))
                }
            });
            Ok(())
        })
        .map_err(|failure| format!("{failure:?}"))?;
        Ok(found)
    }

    fn single(kind: EntryType, name: &[u8]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        builder
            .append(&header(kind, name, 2), &b"hi"[..])
            .expect("appended");
        builder.into_inner().expect("an archive")
    }

    #[test]
    fn files_and_directories_come_in_order() {
        let mut builder = Builder::new(Vec::new());
        let long = format!("d/{}", "n".repeat(300));
        let directory = header(EntryType::Directory, b"./d/", 0);
        builder.append(&directory, &b""[..]).expect("appended");
        let mut file = header(EntryType::Regular, b"", 5);
        builder
            .append_data(&mut file, &long, &b"hello"[..])
            .expect("appended");
        let archive = builder.into_inner().expect("an archive");
        assert_eq!(
            walk(&archive),
            Ok(vec![
                ("d".to_owned(), None),
                (long, Some((0o755, "hello".to_owned()))),
            ])
        );
    }

    #[test]
    fn what_leads_astray_is_refused() {
        for (kind, name) in [
            (EntryType::Regular, &b"../x"[..]),
            (EntryType::Regular, b"a/../../x"),
            (EntryType::Regular, b"/etc/passwd"),
            (EntryType::Regular, b"./"),
            (EntryType::Regular, b"\xff"),
            (EntryType::Symlink, b"x"),
            (EntryType::Link, b"x"),
            (EntryType::Char, b"x"),
            (EntryType::Fifo, b"x"),
            (EntryType::GNUSparse, b"x"),
        ] {
            assert!(walk(&single(kind, name)).is_err(), "{kind:?} {name:?}");
        }
        assert!(walk(&single(EntryType::Regular, b"..x")).is_ok());
    }

    #[test]
    fn a_name_is_not_read_into_memory_whatever_its_length() {
        let mut archive = Vec::new();
        let huge = header(EntryType::GNULongName, b"././@LongLink", 1 << 40);
        archive.extend_from_slice(huge.as_bytes());
        let endless = archive.as_slice().chain(io::repeat(b'x'));
        assert!(each(endless, |_| Ok(())).is_err());
    }

    #[test]
    fn half_an_archive_is_an_error() {
        let whole = single(EntryType::Regular, b"x");
        assert!(walk(&whole[..513]).is_err());
        assert!(walk(b"xyz").is_err());
    }
}
