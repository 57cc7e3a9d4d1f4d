//! Changes to CRIU's images before a restore: other host ids, another host name.
//!
//! An image is two magic numbers and records, each a length and a protobuf message.

use std::fs;
use std::io;
use std::path::Path;

const HEADER: usize = 8;
const COMMON_MAGIC: u32 = 0x5456_4319;
const VARINT: u64 = 0;
const BYTES: u64 = 2;
/// `userns_entry`: its maps.
const MAPS: [u64; 2] = [1, 2];
/// `uid_gid_extent`: the first id outside.
const LOWER_FIRST: u64 = 2;
/// `mm_entry`: what `PR_GET_DUMPABLE` says.
const DUMPABLE: u64 = 15;
/// `utsns_entry`: the host name.
const NODE_NAME: u64 = 1;
/// `file_entry`: a `reg_file_entry`.
const REGULAR_FILE: u64 = 3;
/// `reg_file_entry`: its path.
const FILE_NAME: u64 = 6;
/// `reg_file_entry`: size, mode, build id and checksum.
const FILE_FACTS: [u64; 4] = [8, 10, 11, 12];

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

type Message = Vec<(u64, Value)>;

/// Makes the sandbox's ids begin at another one of the host's.
pub(crate) fn set_uid_base(memory: &Path, old: u32, new: u32) -> io::Result<()> {
    change(memory, "userns-", &|record| {
        for (field, value) in record {
            let (true, Value::Bytes(bytes)) = (MAPS.contains(field), value) else {
                continue;
            };
            let mut extent = decode(bytes).ok_or_else(unreadable)?;
            for (field, value) in &mut extent {
                if *field == LOWER_FIRST && *value == Value::Number(u64::from(old)) {
                    *value = Value::Number(u64::from(new));
                }
            }
            *bytes = encode(&extent);
        }
        Ok(())
    })
}

/// Gives the sandbox another host name.
pub(crate) fn set_hostname(memory: &Path, name: &str) -> io::Result<()> {
    change(memory, "utsns-", &|record| {
        for (field, value) in record {
            if *field == NODE_NAME {
                *value = Value::Bytes(name.as_bytes().to_vec());
            }
        }
        Ok(())
    })
}

/// Lets files below these paths be others than they were: CRIU compares size, mode and build of
/// each open file with what it found, and gives up where they differ.
pub(crate) fn let_change(memory: &Path, paths: &[&str]) -> io::Result<()> {
    let below = |name: &str| {
        let rest = |path: &&str| name.strip_prefix(*path);
        let inside = |rest: &str| rest.is_empty() || rest.starts_with('/');
        paths.iter().filter_map(rest).any(inside)
    };
    change(memory, "files.", &|record| {
        for (field, value) in record {
            let (REGULAR_FILE, Value::Bytes(bytes)) = (*field, value) else {
                continue;
            };
            let mut file = decode(bytes).ok_or_else(unreadable)?;
            let is_below = file.iter().any(|(field, value)| match value {
                Value::Bytes(name) if *field == FILE_NAME => below(&String::from_utf8_lossy(name)),
                _ => false,
            });
            if is_below {
                file.retain(|(field, _)| !FILE_FACTS.contains(field));
                *bytes = encode(&file);
            }
        }
        Ok(())
    })
}

/// Makes its init one that can be looked at again.
///
/// CRIU looks at it from the sandbox's own user namespace. The memory of a started program belongs
/// to that namespace, but what is restored belongs to the host's, and what hides itself is then
/// hidden from everybody inside.
pub(crate) fn show_init(memory: &Path) -> io::Result<()> {
    change(memory, "mm-1.", &|record| {
        record.retain(|(field, _)| *field != DUMPABLE);
        record.push((DUMPABLE, Value::Number(1)));
        Ok(())
    })
}

/// Changes every record of the images whose names begin like this; there must be one.
fn change(
    memory: &Path,
    prefix: &str,
    each: &dyn Fn(&mut Message) -> io::Result<()>,
) -> io::Result<()> {
    let mut changed = false;
    for entry in fs::read_dir(memory)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let image = fs::read(entry.path())?;
        fs::write(entry.path(), rewrite(&image, each)?)?;
        changed = true;
    }
    match changed {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("no image {prefix}"),
        )),
    }
}

fn rewrite(image: &[u8], each: &dyn Fn(&mut Message) -> io::Result<()>) -> io::Result<Vec<u8>> {
    let (header, mut rest) = image.split_at_checked(HEADER).ok_or_else(unreadable)?;
    if !header.starts_with(&COMMON_MAGIC.to_le_bytes()) {
        return Err(unreadable());
    }
    let mut out = header.to_vec();
    while !rest.is_empty() {
        let (len, after) = rest.split_first_chunk().ok_or_else(unreadable)?;
        let len = u32::from_le_bytes(*len) as usize;
        let (record, after) = after.split_at_checked(len).ok_or_else(unreadable)?;
        let mut message = decode(record).ok_or_else(unreadable)?;
        each(&mut message)?;
        let record = encode(&message);
        let len = u32::try_from(record.len()).map_err(io::Error::other)?;
        out.extend(len.to_le_bytes());
        out.extend(record);
        rest = after;
    }
    Ok(out)
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an image of CRIU's")
}

fn decode(mut bytes: &[u8]) -> Option<Message> {
    let mut message = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            VARINT => Value::Number(varint(&mut bytes)?),
            BYTES => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                let (value, rest) = bytes.split_at_checked(len)?;
                bytes = rest;
                Value::Bytes(value.to_vec())
            }
            _ => return None,
        };
        message.push((key >> 3, value));
    }
    Some(message)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn encode(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    for (field, value) in message {
        match value {
            Value::Number(number) => {
                put_varint(&mut out, field << 3 | VARINT);
                put_varint(&mut out, *number);
            }
            Value::Bytes(bytes) => {
                put_varint(&mut out, field << 3 | BYTES);
                put_varint(&mut out, bytes.len() as u64);
                out.extend(bytes);
            }
        }
    }
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(record: &Message) -> Vec<u8> {
        let mut image = COMMON_MAGIC.to_le_bytes().to_vec();
        image.extend([1, 2, 3, 4]);
        let record = encode(record);
        image.extend(u32::try_from(record.len()).expect("short").to_le_bytes());
        image.extend(record);
        image
    }

    fn extent(lower: u64) -> Value {
        Value::Bytes(encode(&vec![
            (1, Value::Number(0)),
            (2, Value::Number(lower)),
            (3, Value::Number(65_536)),
        ]))
    }

    #[test]
    fn ids_and_names_are_changed() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let (ids, name) = (
            dir.path().join("userns-9.img"),
            dir.path().join("utsns-7.img"),
        );
        fs::write(&ids, image(&vec![(1, extent(100)), (2, extent(100))]))?;
        fs::write(&name, image(&vec![(1, Value::Bytes(b"old".to_vec()))]))?;
        set_uid_base(dir.path(), 100, 1_000_000_000)?;
        set_hostname(dir.path(), "a-longer-name")?;
        let moved = image(&vec![
            (1, extent(1_000_000_000)),
            (2, extent(1_000_000_000)),
        ]);
        assert_eq!(fs::read(&ids)?, moved);
        let named = image(&vec![(1, Value::Bytes(b"a-longer-name".to_vec()))]);
        assert_eq!(fs::read(&name)?, named);
        Ok(())
    }

    #[test]
    fn files_of_volumes_may_be_others_than_they_were() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        let file = |name: &str, facts: &[u64]| {
            let facts = facts.iter().map(|field| (*field, Value::Number(1)));
            let name = (FILE_NAME, Value::Bytes(name.as_bytes().to_vec()));
            let file: Message = std::iter::once(name).chain(facts).collect();
            image(&vec![
                (1, Value::Number(1)),
                (3, Value::Bytes(encode(&file))),
            ])
        };
        let path = dir.path().join("files.img");
        for (name, kept) in [
            ("/data/x", &[7][..]),
            ("/data", &[7]),
            ("/data2/x", &[7, 8, 10, 11, 11, 12]),
            ("/x", &[7, 8, 10, 11, 11, 12]),
        ] {
            fs::write(&path, file(name, &[7, 8, 10, 11, 11, 12]))?;
            let_change(dir.path(), &["/data", "/other"])?;
            assert_eq!(fs::read(&path)?, file(name, kept), "{name}");
        }
        Ok(())
    }

    #[test]
    fn what_is_no_image_is_refused() -> io::Result<()> {
        let dir = tempfile::tempdir()?;
        assert!(set_hostname(dir.path(), "name").is_err());
        for bytes in [&b""[..], b"12345678", &image(&vec![])[..9]] {
            fs::write(dir.path().join("utsns-1.img"), bytes)?;
            assert!(set_hostname(dir.path(), "name").is_err());
        }
        Ok(())
    }
}
