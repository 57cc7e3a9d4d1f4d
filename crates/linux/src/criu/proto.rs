//! The few fields of CRIU's protocol that are used, in the protobuf encoding.

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

/// A message being written.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub(super) fn number(mut self, field: u32, value: u64) -> Self {
        self.key(field, VARINT);
        self.varint(value);
        self
    }

    pub(super) fn flag(self, field: u32) -> Self {
        self.number(field, 1)
    }

    pub(super) fn text(self, field: u32, value: &str) -> Self {
        self.bytes(field, value.as_bytes())
    }

    pub(super) fn message(self, field: u32, value: &Message) -> Self {
        self.bytes(field, &value.0)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn bytes(mut self, field: u32, value: &[u8]) -> Self {
        self.key(field, BYTES);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    fn key(&mut self, field: u32, kind: u8) {
        self.varint(u64::from(field) << 3 | u64::from(kind));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Reads the fields of a message; `None` in it and the end for what is not one.
pub(super) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let key = self.varint()?;
        let value = match (key & 7) as u8 {
            VARINT => Value::Number(self.varint()?),
            BYTES => {
                let len = self.varint()?;
                Value::Bytes(self.take(len)?)
            }
            FIXED64 => Value::Bytes(self.take(8)?),
            FIXED32 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((u32::try_from(key >> 3).ok()?, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u32, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// What kind of request or answer a message is.
pub(super) mod kind {
    pub(in crate::criu) const DUMP: u64 = 1;
    pub(in crate::criu) const RESTORE: u64 = 2;
    pub(in crate::criu) const CHECK: u64 = 3;
    pub(in crate::criu) const NOTIFY: u64 = 6;
}

/// An answer of CRIU's.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) kind: u64,
    pub(super) success: bool,
    /// Of a restored init.
    pub(super) pid: Option<u32>,
    /// The name of a notice, and the process it is about.
    pub(super) notice: Option<(String, u32)>,
    pub(super) errno: i32,
    pub(super) message: String,
}

impl Answer {
    pub(super) fn is_notice(&self, name: &str) -> bool {
        self.notice.as_ref().is_some_and(|(found, _)| found == name)
    }

    /// `None` for what is not one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut answer = Self::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, Value::Number(kind)) => answer.kind = kind,
                (2, Value::Number(success)) => answer.success = success != 0,
                (4, Value::Bytes(restored)) => answer.pid = number(restored, 1)?,
                (5, Value::Bytes(notice)) => {
                    let pid = number(notice, 2)?.unwrap_or(0);
                    answer.notice = Some((text(notice, 1)?, pid));
                }
                // A negative number, sign-extended.
                (7, Value::Number(errno)) => answer.errno = errno as i32,
                (9, Value::Bytes(message)) => {
                    answer.message = String::from_utf8_lossy(message).into_owned();
                }
                _ => {}
            }
        }
        Some(answer)
    }
}

fn number(bytes: &[u8], wanted: u32) -> Option<Option<u32>> {
    let mut found = None;
    for field in Fields::of(bytes) {
        if let (field, Value::Number(value)) = field?
            && field == wanted
        {
            found = Some(u32::try_from(value).ok()?);
        }
    }
    Some(found)
}

fn text(bytes: &[u8], wanted: u32) -> Option<String> {
    let mut found = String::new();
    for field in Fields::of(bytes) {
        if let (field, Value::Bytes(value)) = field?
            && field == wanted
        {
            found = String::from_utf8_lossy(value).into_owned();
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded_as_protobuf_says() {
        let inner = Message::default().number(1, 300);
        let message = Message::default().flag(3).text(37, "ab").message(2, &inner);
        let expected = b"\x18\x01\xaa\x02\x02ab\x12\x03\x08\xac\x02";
        assert_eq!(message.as_bytes(), expected);
        let fields: Vec<_> = Fields::of(message.as_bytes()).map(Option::unwrap).collect();
        assert_eq!(fields[0], (3, Value::Number(1)));
        assert_eq!(fields[1], (37, Value::Bytes(b"ab")));
        assert_eq!(fields[2], (2, Value::Bytes(b"\x08\xac\x02")));
    }

    #[test]
    fn answers_are_decoded() {
        let notice = Message::default().text(1, "post-dump").number(2, 77);
        let restored = Message::default().number(1, 4242);
        let bytes = Message::default()
            .number(1, kind::RESTORE)
            .flag(2)
            .message(4, &restored)
            .message(5, &notice)
            .number(7, (-5i64) as u64)
            .text(9, "no")
            .number(99, 1);
        let answer = Answer::decode(bytes.as_bytes()).unwrap();
        let expected = Answer {
            kind: kind::RESTORE,
            success: true,
            pid: Some(4242),
            notice: Some(("post-dump".to_owned(), 77)),
            errno: -5,
            message: "no".to_owned(),
        };
        assert_eq!(answer, expected);
    }

    #[test]
    fn nonsense_is_no_answer() {
        let good = Message::default().number(1, 2).text(9, "some text");
        for len in 1..good.as_bytes().len() {
            let cut = &good.as_bytes()[..len];
            assert!(Answer::decode(cut).is_none() || len == 2, "{cut:?}");
        }
        assert_eq!(Answer::decode(&[0xff; 32]), None);
        assert_eq!(
            Answer::decode(b"\x4a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
            None
        );
    }
}
