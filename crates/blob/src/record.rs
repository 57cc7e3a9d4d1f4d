//! The records of a manifest: one JSON object a line, a tree in pre-order.
//!
//! `depth` says how many folders of the current path enclose an entry, so no record holds a path;
//! a name is one component and checked to be that.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{BlobError, Digest, Result};

/// The longest line: attributes of an entry are at most 64 KiB of names and as much of values each.
pub(crate) const LINE_MAX: usize = 4 << 20;
/// The most folders in each other.
pub(crate) const DEPTH_MAX: usize = 256;
/// The longest name of a file.
const NAME_MAX: usize = 255;
/// The longest target of a symbolic link.
const TARGET_MAX: usize = 4096;

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Record {
    /// The chunk that the small files after it lie in.
    Bundle(Digest),
    /// A piece of the file before it: its place on the grid, its content.
    Piece { at: u64, chunk: Digest },
    /// Something in the tree. The first record is the folder itself.
    Entry(Entry),
}

/// A file of some type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) depth: usize,
    #[serde(with = "text")]
    pub(crate) name: Vec<u8>,
    pub(crate) meta: Meta,
    /// The number by which further names of it refer to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) link: Option<u64>,
    pub(crate) node: Node,
}

/// What all types have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) xattrs: Vec<Xattr>,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Xattr(
    #[serde(with = "text")] pub(crate) Vec<u8>,
    #[serde(with = "hexed")] pub(crate) Vec<u8>,
);

/// The types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Node {
    Folder,
    File {
        size: u64,
        content: Content,
    },
    /// Another name of what came before under this number.
    Link(u64),
    Symlink {
        #[serde(with = "text")]
        target: Vec<u8>,
    },
    Fifo,
    Socket,
    Char(u32, u32),
    Block(u32, u32),
}

/// Where the content of a file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Content {
    /// In the current bundle, from this offset.
    Bundled(usize),
    /// In the pieces that follow; what they leave out is zeros.
    Pieces,
}

impl Record {
    /// Appends the line.
    pub(crate) fn write(&self, to: &mut Vec<u8>) -> Result<()> {
        serde_json::to_writer(&mut *to, self)
            .map_err(|error| BlobError::corrupt("a record", error))?;
        to.push(b'\n');
        Ok(())
    }

    /// Reads a line, without its end, and checks that it is safe to act on.
    pub(crate) fn read(line: &[u8]) -> Result<Self> {
        let bad = |why: String| BlobError::corrupt("a manifest", why);
        let record: Self = serde_json::from_slice(line).map_err(|error| bad(error.to_string()))?;
        if let Self::Entry(entry) = &record {
            entry.check().map_err(|why| bad(why.into()))?;
        }
        Ok(record)
    }
}

impl Entry {
    /// Why it may not be acted on.
    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.depth > DEPTH_MAX {
            return Err("folders are nested too deeply");
        }
        if self.depth == 0 {
            let root = matches!(self.node, Node::Folder) && self.name.is_empty();
            return root.then_some(()).ok_or("its root is not a folder");
        }
        if !is_name(&self.name) {
            return Err("a name of a file is not one");
        }
        match &self.node {
            Node::Symlink { target } if target.is_empty() || target.len() > TARGET_MAX => {
                Err("the target of a symbolic link is not one")
            }
            Node::Symlink { target } if target.contains(&0) => {
                Err("the target of a symbolic link is not one")
            }
            _ => Ok(()),
        }
    }
}

/// Whether these bytes name something inside a folder.
fn is_name(name: &[u8]) -> bool {
    let plain = !name.contains(&b'/') && !name.contains(&0);
    plain && !name.is_empty() && name.len() <= NAME_MAX && name != b"." && name != b".."
}

/// What is not written as it is; bytes that are not ASCII never are.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%').add(b'"').add(b'\\');

/// Bytes that are mostly readable.
mod text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&percent_encode(bytes, ESCAPED))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        Ok(percent_decode_str(&text).collect())
    }

    use std::result::Result;
}

/// Bytes that are not.
mod hexed {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        hex::decode(text.as_bytes()).map_err(serde::de::Error::custom)
    }

    use std::result::Result;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(depth: usize, name: &[u8], node: Node) -> Record {
        let meta = Meta {
            mode: 0o644,
            uid: 1,
            gid: 2,
            mtime: (3, 4),
            xattrs: vec![Xattr(b"user.\xff%".to_vec(), vec![0, 1, 255])],
        };
        Record::Entry(Entry {
            depth,
            name: name.to_vec(),
            meta,
            link: None,
            node,
        })
    }

    fn round(record: &Record) -> Result<Record> {
        let mut line = Vec::new();
        record.write(&mut line).unwrap();
        assert_eq!(line.pop(), Some(b'\n'));
        assert!(!line.contains(&b'\n'));
        Record::read(&line)
    }

    #[test]
    fn strange_names_come_back() {
        for name in [
            &b"a"[..],
            b"a b",
            b"\xff\xfe",
            b"100%",
            b"\n",
            b"\"\\",
            b"%2f",
            "ä".as_bytes(),
        ] {
            let record = entry(1, name, Node::Fifo);
            assert_eq!(round(&record).unwrap(), record);
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [
            &b""[..],
            b".",
            b"..",
            b"../x",
            b"/etc",
            b"a/b",
            b"a\0",
            &[b'x'; 256],
        ] {
            let error = round(&entry(1, name, Node::Folder)).unwrap_err();
            assert!(error.to_string().contains("name of a file"), "{error}");
        }
        assert!(round(&entry(0, b"x", Node::Folder)).is_err());
        assert!(round(&entry(0, b"", Node::Fifo)).is_err());
        assert!(round(&entry(DEPTH_MAX + 1, b"x", Node::Folder)).is_err());
        let target = b"a\0".to_vec();
        assert!(round(&entry(1, b"x", Node::Symlink { target })).is_err());
        assert!(Record::read(br#"{"entry":{}}"#).is_err());
        assert!(Record::read(br#"{"other":1}"#).is_err());
    }
}
