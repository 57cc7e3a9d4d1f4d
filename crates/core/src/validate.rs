//! Checks of what a request asks for.

use std::collections::BTreeMap;
use std::time::Duration;

use woodfrog_types::Fault;
use woodfrog_types::limits::{
    CPU_COUNT_MAX, ENV_VALUE_BYTES_MAX, MAP_ENTRIES_MAX, MAP_KEY_BYTES_MAX, MEMORY_BYTES_MAX,
    METADATA_VALUE_BYTES_MAX,
};
use woodfrog_types::sandbox::Resources;

/// Bytes of all environment variables of a sandbox together: they cross to the guest in one
/// message, and each process pays for them.
pub const ENV_TOTAL_BYTES_MAX: usize = 512 * 1024;
/// The least memory that a sandbox gets.
pub const MEMORY_BYTES_MIN: u64 = 16 << 20;
/// The least disk that a sandbox gets.
pub const DISK_BYTES_MIN: u64 = 1 << 20;
/// The most disk that a sandbox gets.
pub const DISK_BYTES_MAX: u64 = 16 << 40;
/// The fewest processes that a sandbox may have; the guest is one of them.
pub const PIDS_MIN: u32 = 8;
/// The kernel's own limit of process ids.
pub const PIDS_MAX: u32 = 4 << 20;

/// A timeout: more than zero, at most `max`; `None` is never.
pub fn timeout(timeout: Option<Duration>, max: Duration) -> Result<(), Fault> {
    match timeout {
        Some(timeout) if timeout.is_zero() => {
            Err(Fault::invalid("timeout", "Timeout must be greater than 0"))
        }
        Some(timeout) => timeout_at_most(timeout, max),
        None => Ok(()),
    }
}

/// A timeout that may be zero, which means now.
pub fn timeout_at_most(timeout: Duration, max: Duration) -> Result<(), Fault> {
    if timeout <= max {
        return Ok(());
    }
    let hours = max.as_secs() / 3600;
    let text = if hours > 0 {
        format!("Timeout cannot be greater than {hours} hours")
    } else {
        format!("Timeout cannot be greater than {} seconds", max.as_secs())
    };
    Err(Fault::invalid("timeout", text))
}

/// Metadata: free text, bounded.
pub fn metadata(map: &BTreeMap<String, String>) -> Result<(), Fault> {
    entries("metadata", map, METADATA_VALUE_BYTES_MAX)
}

/// Environment variables: names without `=`, no NUL anywhere, bounded one by one and together.
pub fn env(map: &BTreeMap<String, String>) -> Result<(), Fault> {
    entries("env", map, ENV_VALUE_BYTES_MAX)?;
    for (key, value) in map {
        if key.contains(['=', '\0']) {
            return Err(Fault::invalid(
                "env",
                format!("the name `{}` must not contain '=' or NUL", shown(key)),
            ));
        }
        if value.contains('\0') {
            return Err(Fault::invalid(
                "env",
                format!("the value of `{}` must not contain NUL", shown(key)),
            ));
        }
    }
    let total: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if total > ENV_TOTAL_BYTES_MAX {
        return Err(Fault::invalid(
            "env",
            format!("has {total} bytes, more than {ENV_TOTAL_BYTES_MAX}"),
        ));
    }
    Ok(())
}

fn entries(
    field: &'static str,
    map: &BTreeMap<String, String>,
    value_max: usize,
) -> Result<(), Fault> {
    if map.len() > MAP_ENTRIES_MAX {
        return Err(Fault::invalid(
            field,
            format!("has {} entries, more than {MAP_ENTRIES_MAX}", map.len()),
        ));
    }
    for (key, value) in map {
        if key.is_empty() || key.len() > MAP_KEY_BYTES_MAX {
            return Err(Fault::invalid(
                field,
                format!("a key has 1 to {MAP_KEY_BYTES_MAX} bytes"),
            ));
        }
        if value.len() > value_max {
            return Err(Fault::invalid(
                field,
                format!(
                    "the value of `{}` has {} bytes, more than {value_max}",
                    shown(key),
                    value.len()
                ),
            ));
        }
    }
    Ok(())
}

/// A key for a message: short, without control characters.
fn shown(key: &str) -> String {
    key.chars().take(64).flat_map(char::escape_debug).collect()
}

/// Bytes of a secret's value.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
const SECRET_METADATA_ENTRIES_MAX: usize = 32;
const SECRET_METADATA_KEY_BYTES_MAX: usize = 128;
const SECRET_METADATA_VALUE_BYTES_MAX: usize = 1024;
const SECRET_METADATA_BYTES_MAX: usize = 8192;

/// A secret's value. The message never has any of it.
pub fn secret_value(value: &str) -> Result<(), Fault> {
    if (1..=SECRET_BYTES_MAX).contains(&value.len()) {
        return Ok(());
    }
    let text = format!("a secret's value has 1 to {SECRET_BYTES_MAX} bytes");
    Err(Fault::invalid("value", text))
}

/// A secret's metadata, bounded as E2B bounds it.
pub fn secret_metadata(map: &BTreeMap<String, String>) -> Result<(), Fault> {
    let total: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    let fits = map.len() <= SECRET_METADATA_ENTRIES_MAX
        && total <= SECRET_METADATA_BYTES_MAX
        && map.iter().all(|(key, value)| {
            (1..=SECRET_METADATA_KEY_BYTES_MAX).contains(&key.len())
                && value.len() <= SECRET_METADATA_VALUE_BYTES_MAX
        });
    if fits {
        return Ok(());
    }
    Err(Fault::invalid(
        "metadata",
        format!(
            "a secret has at most {SECRET_METADATA_ENTRIES_MAX} entries, keys of \
             {SECRET_METADATA_KEY_BYTES_MAX} and values of {SECRET_METADATA_VALUE_BYTES_MAX} bytes, \
             {SECRET_METADATA_BYTES_MAX} bytes in all"
        ),
    ))
}

/// An idempotency key: 1–255 characters of `[A-Za-z0-9_-]`.
pub fn idempotency_key(key: &str) -> Result<(), Fault> {
    let valid = (1..=255).contains(&key.len())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if valid {
        return Ok(());
    }
    Err(Fault::invalid(
        "idempotency_key",
        "an idempotency key is 1 to 255 characters of A-Z, a-z, 0-9, '_' and '-'",
    ))
}

/// What a sandbox may use.
pub fn resources(resources: &Resources) -> Result<(), Fault> {
    let Resources {
        cpu_count,
        memory_bytes,
        disk_bytes,
        pids,
    } = *resources;
    in_range(
        "resources.cpu_count",
        u64::from(cpu_count),
        1,
        u64::from(CPU_COUNT_MAX),
    )?;
    in_range(
        "resources.memory_bytes",
        memory_bytes,
        MEMORY_BYTES_MIN,
        MEMORY_BYTES_MAX,
    )?;
    in_range(
        "resources.disk_bytes",
        disk_bytes,
        DISK_BYTES_MIN,
        DISK_BYTES_MAX,
    )?;
    in_range(
        "resources.pids",
        u64::from(pids),
        u64::from(PIDS_MIN),
        u64::from(PIDS_MAX),
    )
}

fn in_range(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), Fault> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Fault::invalid(
        field,
        format!("must be {min} to {max}, not {value}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn timeouts_are_positive_and_bounded() {
        let hour = Duration::from_secs(3600);
        assert!(timeout(None, hour).is_ok());
        assert!(timeout(Some(hour), hour).is_ok());
        let zero = timeout(Some(Duration::ZERO), hour).unwrap_err();
        assert_eq!(zero.message, "Timeout must be greater than 0");
        let long = timeout(Some(hour + Duration::from_millis(1)), hour).unwrap_err();
        assert_eq!(long.message, "Timeout cannot be greater than 1 hours");
        assert!(timeout_at_most(Duration::ZERO, hour).is_ok());
    }

    #[test]
    fn maps_are_bounded() {
        assert!(metadata(&map("k", &"v".repeat(METADATA_VALUE_BYTES_MAX))).is_ok());
        assert!(metadata(&map("k", &"v".repeat(METADATA_VALUE_BYTES_MAX + 1))).is_err());
        assert!(metadata(&map("", "v")).is_err());
        assert!(metadata(&map(&"k".repeat(MAP_KEY_BYTES_MAX + 1), "v")).is_err());
        let many: BTreeMap<_, _> = (0..=MAP_ENTRIES_MAX)
            .map(|n| (n.to_string(), String::new()))
            .collect();
        assert!(metadata(&many).is_err());
        assert!(env(&many).is_err());
    }

    #[test]
    fn variables_are_what_the_kernel_takes() {
        assert!(env(&map("A", "b=c")).is_ok());
        for (key, value) in [("A=B", ""), ("A\0", ""), ("A", "\0")] {
            assert!(env(&map(key, value)).is_err(), "{key:?}");
        }
        let big = "v".repeat(ENV_VALUE_BYTES_MAX);
        let heavy: BTreeMap<_, _> = (0..9).map(|n| (n.to_string(), big.clone())).collect();
        assert!(env(&heavy).is_err());
    }

    #[test]
    fn idempotency_keys() {
        assert!(idempotency_key("abc-DEF_1").is_ok());
        for bad in ["", "a b", "ä", "a\n", &"a".repeat(256)] {
            assert!(idempotency_key(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn resources_have_both_ends() {
        let good = Resources::default();
        assert!(resources(&good).is_ok());
        for bad in [
            Resources {
                cpu_count: 0,
                ..good
            },
            Resources {
                cpu_count: CPU_COUNT_MAX + 1,
                ..good
            },
            Resources {
                memory_bytes: 0,
                ..good
            },
            Resources {
                disk_bytes: 0,
                ..good
            },
            Resources { pids: 0, ..good },
        ] {
            assert!(resources(&bad).unwrap_err().field.is_some(), "{bad:?}");
        }
    }
}
