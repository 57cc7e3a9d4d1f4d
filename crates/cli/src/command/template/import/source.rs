//! What a template is imported from.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::command::Usage;

/// What is at the top of an OCI layout or a `docker save` archive, and in no root file system.
const LAYOUT_FILES: &[&str] = &["oci-layout", "index.json", "manifest.json"];
/// What else is at the top of one.
const LAYOUT_OTHERS: &[&str] = &["", "blobs", "repositories"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Rootfs(PathBuf),
    OciArchive(PathBuf),
    OciFolder(PathBuf),
    /// An image in a registry.
    Registry(String),
}

impl Source {
    /// What is on disk wins; a name that looks like a path and is not there is an error.
    pub(super) fn find(text: &str) -> anyhow::Result<Self> {
        let path = Path::new(text);
        let Ok(about) = std::fs::metadata(path) else {
            let names_a_file = text.starts_with(['/', '.', '~'])
                || [".tar", ".gz", ".tgz", ".zst"]
                    .iter()
                    .any(|end| text.ends_with(end));
            if names_a_file || text.is_empty() {
                return Err(Usage(format!("`{text}` is not there")).into());
            }
            return Ok(Self::Registry(text.to_owned()));
        };
        if about.is_dir() {
            if path.join("oci-layout").is_file() || path.join("index.json").is_file() {
                return Ok(Self::OciFolder(path.to_owned()));
            }
            let message = format!(
                "the folder `{text}` is not an OCI layout; pack a root file system as a tar archive"
            );
            return Err(Usage(message).into());
        }
        let file = File::open(path).with_context(|| format!("open {text}"))?;
        let is_layout = is_layout(file).with_context(|| format!("read {text} as a tar archive"))?;
        Ok(if is_layout {
            Self::OciArchive(path.to_owned())
        } else {
            Self::Rootfs(path.to_owned())
        })
    }
}

/// Whether a tar archive (plain, gzip or zstd) holds an image's layout. A root file system is told
/// apart at its first entries.
fn is_layout(mut file: File) -> io::Result<bool> {
    let mut magic = [0; 4];
    let count = file.read(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    let reader: Box<dyn Read> = match &magic[..count] {
        [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file)?),
        _ => Box::new(file),
    };
    let mut archive = tar::Archive::new(reader);
    let mut seen = false;
    for entry in archive.entries()? {
        let entry = entry?;
        let path = entry.path_bytes();
        let path = String::from_utf8_lossy(&path);
        let path = path.trim_start_matches("./").trim_matches('/');
        if LAYOUT_FILES.contains(&path) {
            return Ok(true);
        }
        let top = path.split('/').next().unwrap_or_default();
        if !LAYOUT_OTHERS.contains(&top) && top != "." {
            return Ok(false);
        }
        seen = true;
    }
    if !seen {
        return Err(io::Error::other("it holds nothing"));
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(0);
            header.set_mode(0o644);
            builder
                .append_data(&mut header, name, io::empty())
                .expect("append");
        }
        builder.into_inner().expect("archive")
    }

    #[test]
    fn archives_are_told_apart() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("a.tar");
        let find = || Source::find(path.to_str().expect("text"));
        std::fs::write(&path, archive(&["blobs/sha256/ab", "index.json"])).expect("write");
        assert_eq!(find().expect("found"), Source::OciArchive(path.clone()));
        std::fs::write(&path, archive(&["bin/sh", "index.json"])).expect("write");
        assert_eq!(find().expect("found"), Source::Rootfs(path.clone()));
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(&archive(&["./oci-layout"])).expect("pack");
        std::fs::write(&path, packed.finish().expect("pack")).expect("write");
        assert_eq!(find().expect("found"), Source::OciArchive(path.clone()));
        std::fs::write(&path, b"not a tar archive, at all").expect("write");
        assert!(find().is_err());
    }

    #[test]
    fn what_is_not_on_disk_is_a_registry_s() {
        let registry = Source::Registry("debian:12".into());
        assert_eq!(Source::find("debian:12").expect("found"), registry);
        for missing in ["./rootfs", "/no/such", "rootfs.tar.gz", ""] {
            assert!(Source::find(missing).is_err(), "{missing}");
        }
        let dir = tempfile::tempdir().expect("tempdir");
        let text = dir.path().to_str().expect("text");
        assert!(Source::find(text).is_err());
        std::fs::write(dir.path().join("oci-layout"), "{}").expect("write");
        assert_eq!(
            Source::find(text).expect("found"),
            Source::OciFolder(text.into())
        );
    }
}
