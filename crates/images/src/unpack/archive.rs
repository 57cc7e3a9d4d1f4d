//! Reads tar entries one by one. Unlike the `tar` crate's iterator it bounds the memory that
//! extended headers may take and refuses what it does not understand instead of guessing.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::UnpackError;

const BLOCK: u64 = 512;
/// Extended headers (long names, PAX records) of one entry together.
const MAX_EXTENDED: u64 = 1024 * 1024;

/// One entry's metadata; the data follows in the archive.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) kind: EntryType,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) mtime: (i64, i64),
    pub(super) xattrs: Vec<(String, Vec<u8>)>,
}

/// Values from extended headers that replace those of the next header.
#[derive(Default)]
struct Extended {
    taken: u64,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, i64)>,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// An archive being read. The present entry's data is read through `Read`.
pub(super) struct Archive<R> {
    source: R,
    /// Data and padding of the present entry still to come.
    data: u64,
    padding: u64,
    global: Option<(i64, i64)>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            data: 0,
            padding: 0,
            global: None,
        }
    }

    pub(super) fn into_inner(self) -> R {
        self.source
    }

    /// The next entry, `None` at the end of the archive.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, UnpackError> {
        let mut extended = Extended {
            mtime: self.global,
            ..Extended::default()
        };
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return Ok(None);
            };
            let size = header.entry_size().map_err(bad("size"))?;
            self.start(size)?;
            match header.entry_type() {
                EntryType::GNULongName => extended.path = Some(self.text(&mut extended.taken)?),
                EntryType::GNULongLink => extended.link = Some(self.text(&mut extended.taken)?),
                EntryType::XHeader => {
                    let records = self.extended(&mut extended.taken)?;
                    extended.apply(&records)?;
                }
                EntryType::XGlobalHeader => {
                    let records = self.extended(&mut extended.taken)?;
                    let mut global = Extended::default();
                    global.apply(&records)?;
                    self.global = global.mtime.or(self.global);
                    extended.mtime = extended.mtime.or(self.global);
                }
                EntryType::GNUSparse => return Err(UnpackError::Unsupported("a sparse file")),
                kind => return self.entry(&header, kind, extended).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        header: &Header,
        kind: EntryType,
        extended: Extended,
    ) -> Result<Entry, UnpackError> {
        let has_data = !matches!(
            kind,
            EntryType::Link
                | EntryType::Symlink
                | EntryType::Directory
                | EntryType::Char
                | EntryType::Block
                | EntryType::Fifo
        );
        if let Some(size) = extended.size {
            self.start(size)?;
        }
        if !has_data {
            // Some writers note the target's size in links without sending data.
            self.start(0)?;
        }
        let link = header.link_name_bytes().map(|name| name.into_owned());
        Ok(Entry {
            kind,
            path: extended
                .path
                .unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extended.link.or(link).unwrap_or_default(),
            size: self.data,
            mode: header.mode().map_err(bad("mode"))?,
            uid: extended
                .uid
                .map_or_else(|| blank_or(header, 108, Header::uid), Ok)
                .map_err(bad("uid"))?,
            gid: extended
                .gid
                .map_or_else(|| blank_or(header, 116, Header::gid), Ok)
                .map_err(bad("gid"))?,
            mtime: match extended.mtime {
                Some(mtime) => mtime,
                None => (
                    header.mtime().map_or(0, |t| i64::try_from(t).unwrap_or(0)),
                    0,
                ),
            },
            xattrs: extended.xattrs,
        })
    }

    fn header(&mut self) -> Result<Option<Header>, UnpackError> {
        let mut block = [0_u8; BLOCK as usize];
        let mut filled = 0;
        while filled < block.len() {
            match self.source.read(&mut block[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(UnpackError::Malformed("the archive ends within a header")),
                n => filled += n,
            }
        }
        if block.iter().all(|&b| b == 0) {
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        let sum: u32 = block[..148]
            .iter()
            .chain(&block[156..])
            .map(|&b| u32::from(b))
            .sum();
        if header.cksum().map_err(bad("checksum"))? != sum + 8 * 32 {
            return Err(UnpackError::Malformed(
                "a header's checksum is wrong: not a tar archive?",
            ));
        }
        Ok(Some(header))
    }

    fn start(&mut self, size: u64) -> Result<(), UnpackError> {
        let blocks = size.checked_next_multiple_of(BLOCK);
        self.padding = blocks.ok_or(UnpackError::Malformed("an entry's size is absurd"))? - size;
        self.data = size;
        Ok(())
    }

    fn skip_rest(&mut self) -> Result<(), UnpackError> {
        let rest = self.data + self.padding;
        (self.data, self.padding) = (0, 0);
        let skipped = io::copy(&mut self.source.by_ref().take(rest), &mut io::sink())?;
        if skipped < rest {
            return Err(UnpackError::Malformed("the archive ends within an entry"));
        }
        Ok(())
    }

    fn extended(&mut self, taken: &mut u64) -> Result<Vec<u8>, UnpackError> {
        *taken = taken.saturating_add(self.data);
        if *taken > MAX_EXTENDED {
            return Err(UnpackError::Malformed(
                "extended headers of more than 1 MiB",
            ));
        }
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn text(&mut self, taken: &mut u64) -> Result<Vec<u8>, UnpackError> {
        let mut bytes = self.extended(taken)?;
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
        Ok(bytes)
    }
}

impl<R: Read> Read for Archive<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.data)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = self.source.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "archive ends within a file",
            ));
        }
        self.data -= got as u64;
        Ok(got)
    }
}

impl Extended {
    fn apply(&mut self, mut records: &[u8]) -> Result<(), UnpackError> {
        const BAD: UnpackError = UnpackError::Malformed("a PAX record does not parse");
        while !records.is_empty() {
            let space = records.iter().position(|&b| b == b' ').ok_or(BAD)?;
            let length: usize = number(&records[..space]).ok_or(BAD)?;
            let record = records.get(space + 1..length).ok_or(BAD)?;
            let (key, value) = split(record.strip_suffix(b"\n").ok_or(BAD)?).ok_or(BAD)?;
            self.set(key, value).ok_or(BAD)?;
            if key.starts_with(b"GNU.sparse.") {
                return Err(UnpackError::Unsupported("a sparse file"));
            }
            records = &records[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    let name = String::from_utf8(name.to_vec()).ok()?;
                    self.xattrs.push((name, value.to_vec()));
                }
            }
        }
        Some(())
    }
}

fn split(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = record.iter().position(|&b| b == b'=')?;
    Some((&record[..equals], &record[equals + 1..]))
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// `123.456`, also negative; digits past nanoseconds are dropped.
fn time(text: &[u8]) -> Option<(i64, i64)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanos: i64 = digits.parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

/// A numeric field of eight bytes; writers that have nothing to say leave it blank.
fn blank_or(header: &Header, at: usize, read: fn(&Header) -> io::Result<u64>) -> io::Result<u64> {
    let blank = header.as_bytes()[at..at + 8]
        .iter()
        .all(|&b| matches!(b, 0 | b' '));
    if blank { Ok(0) } else { read(header) }
}

fn bad(field: &'static str) -> impl FnOnce(io::Error) -> UnpackError {
    move |_| UnpackError::BadField(field)
}
