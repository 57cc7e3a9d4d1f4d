//! CRIU's images on their way into a snapshot: digests are taken, zero pages become holes, and
//! pages that the parent has already are shared with it.
//!
//! CRIU writes into the staging folder. What is new is handed on from there by reference, so
//! that it belongs to the staging folder in the file system's books, and not to what a sandbox
//! may write; what is not needed is dropped before it ever reaches the disk.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use woodfrog_linux::btrfs::share_range;

use crate::manifest::FileEntry;

const PAGE: usize = 4096;
const MIB: usize = 1 << 20;
/// Bytes of a page's digest that are kept: enough that no two pages ever share one.
const DIGEST: usize = 16;
/// Shorter runs are not worth an extent of their own.
const RUN_MIN: usize = 16;
/// Building a file from parts costs a copy of what is new: it has to save this share of it.
const WORTH: usize = 8;
/// Smaller files are copied rather than shared.
const COPY_MAX: u64 = 16 << 10;
/// From here on two threads take digests.
const PARALLEL_MIN: u64 = 8 << 20;

pub(crate) type PageDigest = [u8; DIGEST];

/// What came over.
#[derive(Debug, Default)]
pub(crate) struct Transferred {
    pub(crate) files: Vec<FileEntry>,
    /// Pages that are not zero, in bytes.
    pub(crate) memory: u64,
    /// Those of them that the parent did not have.
    pub(crate) written: u64,
}

/// The pages of an earlier snapshot.
pub(crate) struct Parent {
    files: Vec<ParentFile>,
    found: OnceLock<HashMap<PageDigest, Place>>,
}

struct ParentFile {
    file: File,
    digests: Vec<PageDigest>,
}

/// A page of the parent's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    file: usize,
    page: usize,
}

/// Where pages come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    New,
    Zero,
    Shared(Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    page: usize,
    count: usize,
    source: Source,
}

impl Parent {
    /// Opens the images in a snapshot's folder; what has no index is left out.
    pub(crate) fn open(memory: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for entry in fs::read_dir(memory)? {
            let path = entry?.path();
            if !is_pages(&path) {
                continue;
            }
            let Ok(index) = fs::read(index_of(&path)) else {
                continue;
            };
            let file = File::open(&path)?;
            let (digests, rest) = index.as_chunks();
            if rest.is_empty() && digests.len() as u64 * PAGE as u64 == file.metadata()?.len() {
                let digests = digests.to_vec();
                files.push(ParentFile { file, digests });
            }
        }
        Ok(Self {
            files,
            found: OnceLock::new(),
        })
    }

    /// Where a page is, best right after the one before.
    fn find(&self, digest: &PageDigest, before: Option<Place>) -> Option<Place> {
        if let Some(Place { file, page }) = before {
            let next = Place {
                file,
                page: page + 1,
            };
            if self.files[file].digests.get(next.page) == Some(digest) {
                return Some(next);
            }
        }
        let found = self.found.get_or_init(|| {
            let all = self.files.iter().enumerate().rev();
            all.flat_map(|(file, parent)| {
                let pages = parent.digests.iter().enumerate();
                pages.map(move |(page, digest)| (*digest, Place { file, page }))
            })
            .collect()
        });
        found.get(digest).copied()
    }
}

/// Brings every file of `from` into `to`. `scratch` is a folder beside `from` that may be filled.
pub(crate) fn transfer(
    from: &Path,
    to: &Path,
    scratch: &Path,
    parent: Option<&Parent>,
) -> io::Result<Transferred> {
    let mut done = Transferred::default();
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let (file, target) = (File::open(&path)?, to.join(name));
        let len = file.metadata()?.len();
        if is_pages(&path) && len % PAGE as u64 == 0 {
            let digests = page_digests(&file, len)?;
            let counted = put_pages(&file, &digests, &target, &scratch.join(name), parent)?;
            done.memory += counted.0;
            done.written += counted.1;
            let blake3 = digests
                .chunks(MIB / PAGE)
                .map(|pages| hash(pages.as_flattened()));
            let blake3 = blake3.collect();
            done.files.push(file_entry(&target, len, blake3));
            let index = scratch.join(name).with_extension("idx");
            fs::write(&index, digests.as_flattened())?;
            done.files.push(put(&index, &index_of(&target))?);
        } else {
            done.files.push(put(&path, &target)?);
        }
    }
    done.files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(done)
}

/// Whether a file is what the entry says, and if not, why.
pub(crate) fn check(dir: &Path, entry: &FileEntry) -> Result<(), String> {
    let path = dir.join(&entry.name);
    let said = |error: io::Error| format!("{}: {error}", entry.name);
    let file = File::open(&path).map_err(said)?;
    let len = file.metadata().map_err(said)?.len();
    if len != entry.len {
        return Err(format!(
            "{} has {len} bytes instead of {}",
            entry.name, entry.len
        ));
    }
    let found = if is_pages(&path) && len % PAGE as u64 == 0 {
        let digests = page_digests(&file, len).map_err(said)?;
        let chunks = digests.chunks(MIB / PAGE);
        chunks.map(|pages| hash(pages.as_flattened())).collect()
    } else {
        mib_digests(&file, len).map_err(said)?
    };
    match found.iter().zip(&entry.blake3).position(|(a, b)| a != b) {
        Some(at) => Err(format!("{} was changed in its MiB {at}", entry.name)),
        None if found.len() != entry.blake3.len() => Err(format!("{} has no digests", entry.name)),
        None => Ok(()),
    }
}

fn is_pages(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("pages-") && name.ends_with(".img"))
}

fn index_of(pages: &Path) -> PathBuf {
    pages.with_extension("idx")
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn file_entry(path: &Path, len: u64, blake3: Vec<String>) -> FileEntry {
    let name = path.file_name().unwrap_or_default();
    FileEntry {
        name: name.to_string_lossy().into_owned(),
        len,
        blake3,
    }
}

/// An ordinary file, whole.
fn put(from: &Path, to: &Path) -> io::Result<FileEntry> {
    let (source, target) = (File::open(from)?, create(to)?);
    let len = source.metadata()?.len();
    if len <= COPY_MAX {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
        source.read_exact_at(&mut bytes, 0)?;
        target.write_all_at(&bytes, 0)?;
        return Ok(file_entry(to, len, bytes.chunks(MIB).map(hash).collect()));
    }
    let digests = mib_digests(&source, len)?;
    share_range(&source, 0, len, &target, 0)?;
    Ok(file_entry(to, len, digests))
}

/// CRIU reads them as the sandbox's root.
fn create(path: &Path) -> io::Result<File> {
    let file = File::create_new(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    Ok(file)
}

fn mib_digests(file: &File, len: u64) -> io::Result<Vec<String>> {
    let mut digests = Vec::new();
    read_mibs(file, 0..len, |bytes| digests.push(hash(bytes)))?;
    Ok(digests)
}

fn page_digests(file: &File, len: u64) -> io::Result<Vec<PageDigest>> {
    let some = |range| {
        let mut digests = Vec::new();
        read_mibs(file, range, |bytes| {
            digests.extend(bytes.chunks(PAGE).map(page_digest));
        })?;
        io::Result::Ok(digests)
    };
    if len < PARALLEL_MIN {
        return some(0..len);
    }
    let half = len / 2 / MIB as u64 * MIB as u64;
    std::thread::scope(|scope| {
        let second = scope.spawn(|| some(half..len));
        let mut digests = some(0..half)?;
        let panicked = |_| Err(io::Error::other("thread panicked"));
        digests.extend(second.join().unwrap_or_else(panicked)?);
        Ok(digests)
    })
}

fn read_mibs(
    file: &File,
    range: std::ops::Range<u64>,
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; MIB];
    let mut at = range.start;
    while at < range.end {
        let len = MIB.min(usize::try_from(range.end - at).unwrap_or(MIB));
        file.read_exact_at(&mut buffer[..len], at)?;
        each(&buffer[..len]);
        at += len as u64;
    }
    Ok(())
}

fn page_digest(page: &[u8]) -> PageDigest {
    let mut digest = [0; DIGEST];
    digest.copy_from_slice(&blake3::hash(page).as_bytes()[..DIGEST]);
    digest
}

fn zero_digest() -> PageDigest {
    static ZERO: std::sync::LazyLock<PageDigest> =
        std::sync::LazyLock::new(|| page_digest(&[0; PAGE]));
    *ZERO
}

/// Bytes that are not zero, and bytes that are new.
fn put_pages(
    from: &File,
    digests: &[PageDigest],
    to: &Path,
    scratch: &Path,
    parent: Option<&Parent>,
) -> io::Result<(u64, u64)> {
    let runs = runs(digests, parent);
    let pages = |wanted: fn(&Source) -> bool| {
        let some = runs.iter().filter(|run| wanted(&run.source));
        some.map(|run| run.count).sum::<usize>()
    };
    let zero = digests.iter().filter(|d| **d == zero_digest()).count();
    let new = pages(|source| matches!(source, Source::New));
    let memory = bytes(digests.len() - zero);
    let (target, len) = (create(to)?, bytes(digests.len()));
    if (digests.len() - new) * WORTH < digests.len() {
        share_whole(from, len, &target)?;
        return Ok((memory, memory));
    }
    let built = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(scratch)?;
    built.set_len(len)?;
    for run in &runs {
        let at = bytes(run.page);
        match run.source {
            Source::Zero => {}
            Source::New => copy_range(from, &built, at, bytes(run.count))?,
            Source::Shared(place) => {
                let Some(parent) = parent else { continue };
                let (source, source_at) = (&parent.files[place.file].file, bytes(place.page));
                share_range(source, source_at, bytes(run.count), &built, at)?;
            }
        }
    }
    share_whole(&built, len, &target)?;
    Ok((memory, bytes(new)))
}

fn share_whole(from: &File, len: u64, to: &File) -> io::Result<()> {
    match len {
        // Zero would mean "to the end", of nothing.
        0 => Ok(()),
        len => share_range(from, 0, len, to, 0),
    }
}

fn bytes(pages: usize) -> u64 {
    (pages * PAGE) as u64
}

fn copy_range(from: &File, to: &File, at: u64, len: u64) -> io::Result<()> {
    let mut place = at;
    read_mibs(from, at..at + len, |bytes| {
        // The last error is as good as the first: the file is not used then.
        if to.write_all_at(bytes, place).is_ok() {
            place += bytes.len() as u64;
        }
    })?;
    match place == at + len {
        true => Ok(()),
        false => Err(io::ErrorKind::StorageFull.into()),
    }
}

/// Where each page is to come from, in runs.
fn runs(digests: &[PageDigest], parent: Option<&Parent>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut before = None;
    for (page, digest) in digests.iter().enumerate() {
        let place = match *digest == zero_digest() {
            true => None,
            false => parent.and_then(|parent| parent.find(digest, before)),
        };
        let source = match place {
            _ if *digest == zero_digest() => Source::Zero,
            Some(place) => Source::Shared(place),
            None => Source::New,
        };
        before = place;
        push(
            &mut runs,
            Run {
                page,
                count: 1,
                source,
            },
        );
    }
    let long = runs.into_iter().map(|run| match run.count < RUN_MIN {
        true => Run {
            source: Source::New,
            ..run
        },
        false => run,
    });
    let mut joined = Vec::new();
    for run in long {
        push(&mut joined, run);
    }
    joined
}

/// Appends a run, to the last one if it goes on with it.
fn push(runs: &mut Vec<Run>, run: Run) {
    let goes_on = |last: &Run| match (last.source, run.source) {
        (Source::New, Source::New) | (Source::Zero, Source::Zero) => true,
        (Source::Shared(a), Source::Shared(b)) => a.file == b.file && a.page + last.count == b.page,
        _ => false,
    };
    match runs.last_mut() {
        Some(last) if goes_on(last) => last.count += run.count,
        _ => runs.push(run),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> PageDigest {
        page_digest(&[number; PAGE])
    }

    fn parent(pages: &[u8]) -> Parent {
        let file = tempfile::tempfile().expect("a file");
        let digests = pages.iter().map(|page| digest(*page)).collect();
        Parent {
            files: vec![ParentFile { file, digests }],
            found: OnceLock::new(),
        }
    }

    #[test]
    fn pages_that_moved_are_found() {
        let old: Vec<u8> = (1..=40).collect();
        let mut new: Vec<PageDigest> = vec![digest(100), digest(101)];
        new.extend((1..=40).map(digest));
        new.extend([digest(0); RUN_MIN]);
        // Too short to be worth it.
        new.push(digest(5));
        let place = Place { file: 0, page: 0 };
        let expected = [
            (0, 2, Source::New),
            (2, 40, Source::Shared(place)),
            (42, RUN_MIN, Source::Zero),
            (42 + RUN_MIN, 1, Source::New),
        ];
        let expected = expected.map(|(page, count, source)| Run {
            page,
            count,
            source,
        });
        assert_eq!(runs(&new, Some(&parent(&old))), expected);
    }

    #[test]
    fn without_a_parent_all_is_new() {
        let new: Vec<PageDigest> = (1..=40).map(digest).collect();
        let all = Run {
            page: 0,
            count: 40,
            source: Source::New,
        };
        assert_eq!(runs(&new, None), [all]);
        assert_eq!(runs(&[], None), []);
    }
}
