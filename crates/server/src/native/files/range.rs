//! The `Range` header, one range.

use std::ops::Range;

/// What part of a file is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::native) enum Wanted {
    All,
    Part(Range<u64>),
    /// Nothing of the file lies in the range.
    Unsatisfiable,
}

/// Reads the header. What is not understood (several ranges, other units) means the whole file,
/// as RFC 9110 allows.
pub(in crate::native) fn parse(header: Option<&str>, size: u64) -> Wanted {
    let Some((first, last)) = header
        .and_then(|text| text.trim().strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'))
    else {
        return Wanted::All;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (number(first), number(last)) {
        (Some(first), _) if first >= size => Wanted::Unsatisfiable,
        (Some(first), Some(last)) if last >= first => {
            Wanted::Part(first..size.min(last.saturating_add(1)))
        }
        (Some(first), None) if last.trim().is_empty() => Wanted::Part(first..size),
        (None, Some(_)) if first.trim().is_empty() && size == 0 => Wanted::Unsatisfiable,
        (None, Some(0)) if first.trim().is_empty() => Wanted::Unsatisfiable,
        (None, Some(suffix)) if first.trim().is_empty() => {
            Wanted::Part(size.saturating_sub(suffix)..size)
        }
        _ => Wanted::All,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        for (header, wanted) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=2-", Wanted::Part(2..10)),
            ("bytes=2-100", Wanted::Part(2..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=5-2", Wanted::All),
            ("bytes=1-2,4-5", Wanted::All),
            ("lines=1-2", Wanted::All),
        ] {
            assert_eq!(parse(Some(header), 10), wanted, "{header}");
        }
        assert_eq!(parse(None, 10), Wanted::All);
    }
}
