//! The stored form of a workspace's own retention: JSON. A form that was released stays readable.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use woodfrog_types::retention::Retention;

/// Seconds; absent is for ever.
#[derive(Serialize, Deserialize)]
struct Row {
    ended: Option<u64>,
    age: Option<u64>,
    entries: Option<u64>,
}

pub(super) fn write(own: Option<&Retention>) -> Vec<u8> {
    let row = own.map(|own| Row {
        ended: own.ended.map(|time| time.as_secs()),
        age: own.age.map(|time| time.as_secs()),
        entries: own.entries,
    });
    serde_json::to_vec(&row).expect("numbers are JSON")
}

/// `None`: it was taken back.
pub(super) fn read(bytes: &[u8]) -> serde_json::Result<Option<Retention>> {
    let row: Option<Row> = serde_json::from_slice(bytes)?;
    Ok(row.map(|row| Retention {
        ended: row.ended.map(Duration::from_secs),
        age: row.age.map(Duration::from_secs),
        entries: row.entries,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_back_as_it_was() {
        let own = Retention {
            ended: Some(Duration::from_secs(86_400)),
            age: None,
            entries: Some(5_000),
        };
        for own in [None, Some(own), Some(Retention::FOREVER)] {
            assert_eq!(read(&write(own.as_ref())).unwrap(), own);
        }
    }

    #[test]
    fn the_form_that_was_released_is_read() {
        let bytes = br#"{"ended":60,"age":null,"entries":1000}"#;
        let read = read(bytes).unwrap().unwrap();
        assert_eq!(read.ended, Some(Duration::from_secs(60)));
        assert_eq!((read.age, read.entries), (None, Some(1000)));
    }
}
