//! The files that a build copies.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

/// Files and directories of one source at most.
const ENTRIES_MAX: usize = 1_000_000;

/// An archive that is named by its content.
pub(super) struct Archive {
    pub(super) file: fs::File,
    /// SHA-256 of the archive, hexadecimal.
    pub(super) hash: String,
    pub(super) bytes: u64,
}

/// Packs what `source` (a path or, in its last part, a glob) names below `context` as tar.gz.
/// The same files give the same archive: times and owners are left out.
pub(super) fn pack(context: &Path, source: &str) -> anyhow::Result<Archive> {
    let mut found = Vec::new();
    for path in matches(context, source)? {
        collect(context, &path, &mut found)?;
    }
    let encoder = GzBuilder::new()
        .mtime(0)
        .write(tempfile::tempfile()?, Compression::fast());
    let mut archive = tar::Builder::new(encoder);
    archive.mode(tar::HeaderMode::Deterministic);
    archive.follow_symlinks(false);
    for path in &found {
        let from = context.join(path);
        archive
            .append_path_with_name(&from, path)
            .with_context(|| format!("pack {}", from.display()))?;
    }
    let mut file = archive.into_inner()?.finish()?;
    let bytes = file.stream_position()?;
    let hash = hash(&mut file)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(Archive { file, hash, bytes })
}

fn hash(file: &mut fs::File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&buffer[..count]);
    }
}

/// Paths relative to the context, sorted.
fn matches(context: &Path, source: &str) -> anyhow::Result<Vec<PathBuf>> {
    let trimmed = source.trim_end_matches('/');
    let (parent, last) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
    let is_glob = |part: &str| part.contains(['*', '?', '[', '{']);
    if is_glob(parent) || last.contains('{') {
        bail!("`{source}`: only the last part may be a pattern, of `*`, `?` and `[...]`");
    }
    if !is_glob(last) {
        if fs::symlink_metadata(context.join(trimmed)).is_err() {
            bail!("`{source}` is not in {}", context.display());
        }
        return Ok(vec![PathBuf::from(trimmed)]);
    }
    let folder = context.join(parent);
    let listed = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    let mut found = Vec::new();
    for entry in listed {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !glob(last.as_bytes(), name.as_bytes()) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            bail!("`{source}` matches the directory `{name}`; copy it by its name");
        }
        found.push(Path::new(parent).join(name));
    }
    if found.is_empty() {
        bail!("nothing in {} matches `{source}`", context.display());
    }
    found.sort();
    Ok(found)
}

fn collect(context: &Path, path: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let full = context.join(path);
    let kind = fs::symlink_metadata(&full)
        .with_context(|| format!("read {}", full.display()))?
        .file_type();
    if !(kind.is_dir() || kind.is_file() || kind.is_symlink()) {
        // Sockets and the like are nothing to copy.
        return Ok(());
    }
    if found.len() >= ENTRIES_MAX {
        bail!("more than {ENTRIES_MAX} files are to be copied");
    }
    if path != Path::new(".") {
        found.push(path.to_owned());
    }
    if kind.is_dir() {
        let listed = fs::read_dir(&full).with_context(|| format!("list {}", full.display()))?;
        let mut names = Vec::new();
        for entry in listed {
            names.push(entry?.file_name());
        }
        names.sort();
        let base = if path == Path::new(".") {
            Path::new("")
        } else {
            path
        };
        for name in names {
            collect(context, &base.join(name), found)?;
        }
    }
    Ok(())
}

/// Whether a name is of the form of a pattern with `*`, `?` and `[a-z]`.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.first(), name.first()) {
        (None, None) => true,
        (Some(b'*'), _) => {
            glob(&pattern[1..], name) || (!name.is_empty() && glob(pattern, &name[1..]))
        }
        (Some(b'?'), Some(_)) => glob(&pattern[1..], &name[1..]),
        (Some(b'['), Some(c)) => match class(&pattern[1..], *c) {
            Some((true, rest)) => glob(rest, &name[1..]),
            _ => false,
        },
        (Some(p), Some(c)) => p == c && glob(&pattern[1..], &name[1..]),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Whether the class that begins here has the byte, and what follows the class.
fn class(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let end = pattern.iter().skip(1).position(|c| *c == b']')? + 1;
    let (members, rest) = (&pattern[..end], &pattern[end + 1..]);
    let (negated, members) = match members.split_first() {
        Some((b'^' | b'!', members)) => (true, members),
        _ => (false, members),
    };
    let mut has = members.contains(&byte);
    for range in members.windows(3).filter(|range| range[1] == b'-') {
        has |= (range[0]..=range[2]).contains(&byte);
    }
    Some((has != negated, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: Archive) -> Vec<String> {
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive.file));
        let entries = tar.entries().expect("entries");
        entries
            .map(|entry| {
                let path = entry.expect("entry").path().expect("path").into_owned();
                path.to_string_lossy().into_owned()
            })
            .collect()
    }

    #[test]
    fn the_same_files_give_the_same_hash() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir(dir.path().join("src")).expect("mkdir");
        for name in ["src/b.py", "src/a.py", "c.txt"] {
            fs::write(dir.path().join(name), name).expect("write");
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("src/link")).expect("link");
        let first = pack(dir.path(), "src/").expect("pack");
        let hash = first.hash.clone();
        assert_eq!(names(first), ["src", "src/a.py", "src/b.py", "src/link"]);
        let file = fs::File::open(dir.path().join("src/a.py")).expect("open");
        file.set_modified(std::time::UNIX_EPOCH).expect("touch");
        assert_eq!(pack(dir.path(), "src").expect("pack").hash, hash);
        fs::write(dir.path().join("src/a.py"), "other").expect("write");
        assert_ne!(pack(dir.path(), "src").expect("pack").hash, hash);
        assert_eq!(
            names(pack(dir.path(), "src/*.py").expect("pack")),
            ["src/a.py", "src/b.py"]
        );
        assert_eq!(names(pack(dir.path(), ".").expect("pack")).len(), 5);
    }

    #[test]
    fn what_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir(dir.path().join("sub")).expect("mkdir");
        for source in ["no", "*.py", "s*", "*/x", "{a,b}"] {
            assert!(pack(dir.path(), source).is_err(), "{source}");
        }
    }

    #[test]
    fn patterns_match_names() {
        for (pattern, name, wanted) in [
            ("*.py", "a.py", true),
            ("*.py", "a.pyc", false),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("a*b*c", "a1b2c", true),
            ("[", "[", false),
        ] {
            assert_eq!(
                glob(pattern.as_bytes(), name.as_bytes()),
                wanted,
                "{pattern} {name}"
            );
        }
    }
}
