//! `Range` and the conditional headers, for one file of a known size.

use http::{HeaderMap, header};

/// What a `Range` header asks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slice {
    /// No range, or one that is to be ignored: malformed, another unit, several ranges.
    Whole,
    /// `start..end`, never empty, inside the file.
    Part { start: u64, end: u64 },
    /// Nothing of the file is in it.
    Unsatisfiable,
}

/// Reads a `Range` value against a size.
pub(crate) fn parse_range(value: &str, size: u64) -> Slice {
    let Some(spec) = value.trim().strip_prefix("bytes=") else {
        return Slice::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Slice::Whole;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (first, last) = (first.trim(), last.trim());
    if !digits(first) || !digits(last) || (first.is_empty() && last.is_empty()) {
        return Slice::Whole;
    }
    // Numbers beyond 64 bits mean the same as the largest.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let (start, end) = if first.is_empty() {
        (size.saturating_sub(number(last)), size)
    } else {
        let start = number(first);
        let end = if last.is_empty() {
            size
        } else {
            number(last).saturating_add(1).min(size)
        };
        if !last.is_empty() && number(last) < start {
            return Slice::Whole;
        }
        (start, end)
    };
    if start >= end {
        Slice::Unsatisfiable
    } else {
        Slice::Part { start, end }
    }
}

/// What identifies a version of a file to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Validators {
    pub(crate) etag: String,
    /// An HTTP date.
    pub(crate) last_modified: Option<String>,
    mtime_seconds: i64,
}

const HTTP_DATE: &str = "%a, %d %b %Y %H:%M:%S GMT";

impl Validators {
    pub(crate) fn new(mtime_ns: i64, size: u64) -> Self {
        let mtime_seconds = mtime_ns.div_euclid(1_000_000_000);
        let last_modified = jiff::Timestamp::from_second(mtime_seconds)
            .ok()
            .filter(|_| mtime_seconds > 0)
            .map(|time| time.strftime(HTTP_DATE).to_string());
        Self {
            etag: format!("\"{mtime_ns:x}-{size:x}\""),
            last_modified,
            mtime_seconds,
        }
    }

    /// The client has this version: 304.
    pub(crate) fn not_modified(&self, headers: &HeaderMap) -> bool {
        if let Some(wanted) = text(headers, &header::IF_NONE_MATCH) {
            return wanted.trim() == "*"
                || wanted
                    .split(',')
                    .any(|tag| tag.trim().trim_start_matches("W/") == self.etag);
        }
        text(headers, &header::IF_MODIFIED_SINCE)
            .and_then(http_date)
            .is_some_and(|since| self.mtime_seconds > 0 && self.mtime_seconds <= since)
    }

    /// A range is to be honoured: no `If-Range`, or one that names this version.
    pub(crate) fn range_applies(&self, headers: &HeaderMap) -> bool {
        let Some(condition) = text(headers, &header::IF_RANGE) else {
            return true;
        };
        condition.trim() == self.etag
            || http_date(condition).is_some_and(|date| date == self.mtime_seconds)
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &header::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn http_date(text: &str) -> Option<i64> {
    let civil = jiff::civil::DateTime::strptime(HTTP_DATE, text.trim()).ok()?;
    Some(
        civil
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()?
            .timestamp()
            .as_second(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        for (value, size, slice) in [
            ("bytes=0-0", 10, Slice::Part { start: 0, end: 1 }),
            ("bytes=2-", 10, Slice::Part { start: 2, end: 10 }),
            ("bytes=-3", 10, Slice::Part { start: 7, end: 10 }),
            ("bytes=-30", 10, Slice::Part { start: 0, end: 10 }),
            (
                "bytes=5-99999999999999999999999",
                10,
                Slice::Part { start: 5, end: 10 },
            ),
            ("bytes=10-", 10, Slice::Unsatisfiable),
            ("bytes=-0", 10, Slice::Unsatisfiable),
            ("bytes=0-", 0, Slice::Unsatisfiable),
            ("bytes=4-2", 10, Slice::Whole),
            ("bytes=0-1,3-4", 10, Slice::Whole),
            ("lines=0-1", 10, Slice::Whole),
            ("bytes=-", 10, Slice::Whole),
        ] {
            assert_eq!(parse_range(value, size), slice, "{value}");
        }
    }

    #[test]
    fn a_version_is_recognised() {
        let version = Validators::new(1_700_000_000_500_000_000, 12);
        let with = |name: header::HeaderName, value: &str| {
            HeaderMap::from_iter([(name, value.parse().unwrap())])
        };
        let date = version.last_modified.clone().unwrap();
        assert_eq!(date, "Tue, 14 Nov 2023 22:13:20 GMT");
        assert!(version.not_modified(&with(header::IF_MODIFIED_SINCE, &date)));
        assert!(!version.not_modified(&with(
            header::IF_MODIFIED_SINCE,
            "Tue, 14 Nov 2023 22:13:19 GMT"
        )));
        assert!(version.not_modified(&with(header::IF_NONE_MATCH, &version.etag)));
        assert!(!version.not_modified(&with(header::IF_NONE_MATCH, "\"x\"")));
        assert!(version.range_applies(&with(header::IF_RANGE, &date)));
        assert!(!version.range_applies(&with(header::IF_RANGE, "\"x\"")));
        assert!(version.range_applies(&HeaderMap::new()));
    }

    proptest! {
        #[test]
        fn any_range_stays_inside_the_file(value in "(bytes=)?[0-9 ,-]{0,24}|\\PC{0,24}", size in any::<u64>()) {
            if let Slice::Part { start, end } = parse_range(&value, size) {
                prop_assert!(start < end && end <= size);
            }
        }
    }
}
