//! From a walk to chunks: large files on a grid, small ones together, records into the body.
//!
//! Small files are put into one chunk in the order of the walk. A bundle ends when it is full, and
//! also before a file whose name says so (one in 64), so that a file that was added or changed
//! shifts only the few bundles up to the next such name, and the others are shared with the
//! archive before.

use crate::chunk::{CHUNK_BYTES, is_zero};
use crate::record::{Content, Entry, Node, Record};
use crate::{BlobError, Digest, Result};

/// Files up to this size are bundled.
pub const BUNDLED_MAX: usize = 256 << 10;
/// Records that wait for their bundle, at most.
const PENDING_MAX: usize = 4096;

/// Takes a chunk's content.
pub(crate) trait Sink {
    fn chunk(&mut self, digest: Digest, content: Vec<u8>) -> Result<()>;
}

/// Puts the pieces of one archive together.
pub(crate) struct Packer<S> {
    sink: S,
    bundle: Vec<u8>,
    /// Records since the bundle began; its own goes before them.
    pending: Vec<Record>,
    lines: Vec<u8>,
    body: Vec<Digest>,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

impl<S: Sink> Packer<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self {
            sink,
            bundle: Vec::new(),
            pending: Vec::new(),
            lines: Vec::new(),
            body: Vec::new(),
            entries: 0,
            bytes: 0,
        }
    }

    /// Something without content, or whose pieces follow.
    pub(crate) fn entry(&mut self, entry: Entry) -> Result<()> {
        self.entries += 1;
        self.record(Record::Entry(entry))
    }

    /// A small file with all its content.
    pub(crate) fn small(&mut self, mut entry: Entry, content: &[u8]) -> Result<()> {
        let full = self.bundle.len() + content.len() > CHUNK_BYTES;
        if !self.bundle.is_empty() && (full || begins_bundle(&entry.name)) {
            self.flush()?;
        }
        if let Node::File { content, .. } = &mut entry.node {
            *content = Content::Bundled(self.bundle.len());
        }
        self.bundle.extend_from_slice(content);
        self.bytes += content.len() as u64;
        self.entry(entry)
    }

    /// A piece of the file that was entered last. Zeros are left out.
    pub(crate) fn piece(&mut self, at: u64, content: Vec<u8>) -> Result<()> {
        if is_zero(&content) {
            return Ok(());
        }
        let chunk = Digest::of(&content);
        self.bytes += content.len() as u64;
        self.sink.chunk(chunk, content)?;
        self.record(Record::Piece { at, chunk })
    }

    /// Ends it; gives the chunks of the body.
    pub(crate) fn finish(mut self) -> Result<Vec<Digest>> {
        self.flush()?;
        let rest = std::mem::take(&mut self.lines);
        if !rest.is_empty() {
            self.body_chunk(rest)?;
        }
        Ok(self.body)
    }

    fn record(&mut self, record: Record) -> Result<()> {
        self.pending.push(record);
        if self.pending.len() >= PENDING_MAX {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.bundle.is_empty() {
            let bundle = std::mem::take(&mut self.bundle);
            let digest = Digest::of(&bundle);
            self.sink.chunk(digest, bundle)?;
            Record::Bundle(digest).write(&mut self.lines)?;
        }
        for record in std::mem::take(&mut self.pending) {
            let before = self.lines.len();
            record.write(&mut self.lines)?;
            if self.lines.len() - before > crate::record::LINE_MAX {
                return Err(BlobError::corrupt(
                    "an entry",
                    "its attributes are too long",
                ));
            }
            while self.lines.len() >= CHUNK_BYTES {
                let rest = self.lines.split_off(CHUNK_BYTES);
                let full = std::mem::replace(&mut self.lines, rest);
                self.body_chunk(full)?;
            }
        }
        Ok(())
    }

    fn body_chunk(&mut self, content: Vec<u8>) -> Result<()> {
        let digest = Digest::of(&content);
        self.body.push(digest);
        self.sink.chunk(digest, content)
    }
}

fn begins_bundle(name: &[u8]) -> bool {
    blake3::hash(name).as_bytes()[0] < 4
}
