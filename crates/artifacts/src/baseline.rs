//! What was in a layer when a run began: a file with a line for each of its files, in the order of
//! the walk. It is read beside the walk at the end, so neither needs memory for all of them.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;

use crate::layer::{Found, Layer, LayerError, Mark, apart, order};

const MAGIC: &[u8; 8] = b"wfbase1\n";
/// Bytes of a path, and of the head.
const TEXT_MAX: usize = 1 << 20;

/// What was in a layer when a run began.
#[derive(Debug)]
pub struct Baseline {
    folders: Vec<String>,
    reader: BufReader<File>,
    next: Option<(Vec<u8>, Mark)>,
}

impl Baseline {
    /// Writes down what is below `folders` now, whole or not at all. `leave_out` is told paths
    /// below their folder. Blocking.
    pub fn write(
        at: &Path,
        layer: &Layer,
        folders: &[String],
        mut leave_out: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), LayerError> {
        let folders = apart(folders);
        let staged = at.with_extension("new");
        let mut writer = BufWriter::new(File::create(&staged)?);
        writer.write_all(MAGIC)?;
        put_text(&mut writer, folders.join("\0").as_bytes())?;
        for folder in &folders {
            let mut visit = |found: &Found<'_>| -> Result<ControlFlow<()>, LayerError> {
                put_text(&mut writer, found.path)?;
                let Mark {
                    inode,
                    seconds,
                    nanos,
                    size,
                } = found.mark;
                for bytes in [
                    inode.to_le_bytes(),
                    seconds.to_le_bytes(),
                    nanos.to_le_bytes(),
                    size.to_le_bytes(),
                ] {
                    writer.write_all(&bytes)?;
                }
                Ok(ControlFlow::Continue(()))
            };
            let _whole = layer.walk(folder, &mut leave_out, &mut visit)?;
        }
        writer.flush()?;
        std::fs::rename(&staged, at)?;
        Ok(())
    }

    /// Opens one. `Unknown` if there is none.
    pub fn open(at: &Path) -> Result<Self, LayerError> {
        let file = match File::open(at) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(LayerError::Unknown);
            }
            Err(error) => return Err(error.into()),
        };
        let mut reader = BufReader::new(file);
        let mut magic = [0; MAGIC.len()];
        reader
            .read_exact(&mut magic)
            .map_err(|_| LayerError::Unknown)?;
        if magic != *MAGIC {
            return Err(LayerError::Unknown);
        }
        let head = take_text(&mut reader)?.ok_or(LayerError::Unknown)?;
        let head = String::from_utf8(head).map_err(|_| LayerError::Unknown)?;
        let mut baseline = Self {
            folders: head.split('\0').map(str::to_owned).collect(),
            reader,
            next: None,
        };
        baseline.advance()?;
        Ok(baseline)
    }

    /// The folders that it is of.
    pub(crate) fn folders(&self) -> Vec<String> {
        self.folders.clone()
    }

    /// What a file was; `None` if it was not there. Paths must come in the order of the walk.
    pub(crate) fn was(&mut self, path: &[u8]) -> Result<Option<Mark>, LayerError> {
        loop {
            match &self.next {
                Some((known, mark)) => match order(known, path) {
                    std::cmp::Ordering::Less => self.advance()?,
                    std::cmp::Ordering::Equal => return Ok(Some(*mark)),
                    std::cmp::Ordering::Greater => return Ok(None),
                },
                None => return Ok(None),
            }
        }
    }

    fn advance(&mut self) -> Result<(), LayerError> {
        self.next = None;
        let Some(path) = take_text(&mut self.reader)? else {
            return Ok(());
        };
        let mut number = || {
            let mut bytes = [0; 8];
            let read = self.reader.read_exact(&mut bytes);
            read.map(|()| bytes).map_err(|_| LayerError::Unknown)
        };
        let mark = Mark {
            inode: u64::from_le_bytes(number()?),
            seconds: i64::from_le_bytes(number()?),
            nanos: u64::from_le_bytes(number()?),
            size: u64::from_le_bytes(number()?),
        };
        self.next = Some((path, mark));
        Ok(())
    }
}

fn put_text(writer: &mut impl Write, text: &[u8]) -> io::Result<()> {
    let length = u32::try_from(text.len()).map_err(io::Error::other)?;
    writer.write_all(&length.to_le_bytes())?;
    writer.write_all(text)
}

/// `None` at the end.
fn take_text(reader: &mut impl Read) -> Result<Option<Vec<u8>>, LayerError> {
    let mut length = [0; 4];
    let mut got = 0;
    while got < length.len() {
        match reader.read(&mut length[got..])? {
            0 if got == 0 => return Ok(None),
            0 => return Err(LayerError::Unknown),
            more => got += more,
        }
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > TEXT_MAX {
        return Err(LayerError::Unknown);
    }
    let mut text = vec![0; length];
    let read = reader.read_exact(&mut text);
    read.map_err(|_| LayerError::Unknown)?;
    Ok(Some(text))
}
