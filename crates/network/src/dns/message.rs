//! As much of the DNS message format as forwarding needs: the question, and addresses.

use std::net::Ipv4Addr;

/// Length of the fixed header.
pub(crate) const HEADER: usize = 12;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
/// More compression jumps than a sane message has; stops loops.
const MAX_JUMPS: usize = 32;
/// More answer records than are looked at.
const MAX_RECORDS: usize = 64;

/// Refusal codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    ServerFailure = 2,
    Refused = 5,
}

/// What a query asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The queried name, lower case, without the final dot.
    pub(crate) name: String,
    /// Header and question section end here.
    end: usize,
}

/// The question of a standard query with exactly one; `None` for anything else.
pub(crate) fn question(query: &[u8]) -> Option<Question> {
    const RESPONSE_OR_OPCODE: u8 = 0xf8;
    let header = query.get(..HEADER)?;
    if header[2] & RESPONSE_OR_OPCODE != 0 || header[4..6] != [0, 1] {
        return None;
    }
    let (name, end) = name(query, HEADER)?;
    query.get(end..end + 4)?;
    Some(Question { name, end: end + 4 })
}

/// Whether `answer` has this id and answers the question of `query` (names in any case).
pub(crate) fn answers(query: &[u8], question: &Question, id: [u8; 2], answer: &[u8]) -> bool {
    const RESPONSE: u8 = 0x80;
    let asked = &query[HEADER..question.end];
    answer.len() >= question.end
        && answer[..2] == id
        && answer[2] & RESPONSE != 0
        && answer[4..6] == [0, 1]
        && answer[HEADER..question.end].eq_ignore_ascii_case(asked)
}

/// A reply with no records.
pub(crate) fn failure(query: &[u8], question: &Question, code: Code) -> Vec<u8> {
    let mut reply = query[..question.end].to_vec();
    reply[2] = 0x80 | (query[2] & 0x01);
    reply[3] = 0x80 | code as u8;
    reply[6..HEADER].fill(0);
    reply
}

/// A query for the IPv4 addresses of a checked host name.
pub(crate) fn address_query(id: [u8; 2], host: &str) -> Vec<u8> {
    let mut query = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in host.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.push(0);
    query.extend(TYPE_A.to_be_bytes());
    query.extend(CLASS_IN.to_be_bytes());
    query
}

/// All IPv4 addresses in the answer section, aliases followed by the upstream server.
pub(crate) fn addresses(answer: &[u8], question: &Question) -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    let count = read_u16(answer, 6).map_or(0, usize::from).min(MAX_RECORDS);
    let mut at = question.end;
    for _ in 0..count {
        let Some((next, address)) = record(answer, at) else {
            break;
        };
        found.extend(address);
        at = next;
    }
    found
}

fn record(answer: &[u8], at: usize) -> Option<(usize, Option<Ipv4Addr>)> {
    let (_, fixed) = name(answer, at)?;
    let (kind, class) = (read_u16(answer, fixed)?, read_u16(answer, fixed + 2)?);
    let len = usize::from(read_u16(answer, fixed + 8)?);
    let data = answer.get(fixed + 10..fixed + 10 + len)?;
    let address = (kind == TYPE_A && class == CLASS_IN)
        .then(|| <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from))
        .flatten();
    Some((fixed + 10 + len, address))
}

/// The name at `at` and where what follows it begins.
fn name(message: &[u8], at: usize) -> Option<(String, usize)> {
    const POINTER: u8 = 0xc0;
    let (mut at, mut end, mut text) = (at, None, String::new());
    for _ in 0..MAX_JUMPS + 128 {
        let len = *message.get(at)?;
        if len & POINTER == POINTER {
            end.get_or_insert(at + 2);
            at = usize::from(read_u16(message, at)? & 0x3fff);
            continue;
        }
        if len & POINTER != 0 {
            return None;
        }
        at += 1;
        if len == 0 {
            return Some((text, end.unwrap_or(at)));
        }
        let label = message.get(at..at + usize::from(len))?;
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|b| b.to_ascii_lowercase() as char));
        if text.len() > 255 {
            return None;
        }
        at += usize::from(len);
    }
    None
}

fn read_u16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer_to(query: &[u8], ip: [u8; 4]) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(ip);
        answer
    }

    #[test]
    fn round_trip() {
        let query = address_query([7, 9], "a.example.com");
        let asked = question(&query).unwrap();
        assert_eq!(asked.name, "a.example.com");
        let answer = answer_to(&query, [203, 0, 113, 10]);
        assert!(answers(&query, &asked, [7, 9], &answer));
        assert!(!answers(&query, &asked, [7, 8], &answer));
        assert!(!answers(
            &address_query([7, 9], "b.example.com"),
            &asked,
            [7, 9],
            &answer
        ));
        assert_eq!(
            addresses(&answer, &asked),
            vec![Ipv4Addr::new(203, 0, 113, 10)]
        );
    }

    #[test]
    fn failures_are_answers() {
        let query = address_query([1, 2], "example.com");
        let asked = question(&query).unwrap();
        let reply = failure(&query, &asked, Code::Refused);
        assert!(answers(&query, &asked, [1, 2], &reply) && reply[3] & 0x0f == 5);
    }

    #[test]
    fn pointer_loops_end() {
        let mut query = address_query([1, 2], "example.com");
        query[HEADER] = 0xc0;
        query[HEADER + 1] = HEADER as u8;
        assert_eq!(question(&query), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(asked) = question(&data) {
                addresses(&data, &asked);
                failure(&data, &asked, Code::ServerFailure);
            }
        }
    }
}
