//! Where volumes go in a sandbox's file tree.

use std::collections::BTreeSet;

use woodfrog_types::Fault;
use woodfrog_types::secret::WantedMount;

use crate::names;

/// Volumes of one sandbox.
pub const MOUNTS_MAX: usize = 8;
/// Bytes of a path.
pub const MOUNT_PATH_BYTES_MAX: usize = 1024;
/// What errors are about.
const FIELD: &str = "volumes";
/// What the server itself puts into every sandbox.
const RESERVED: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/usr/lib/woodfrog"];

/// Checks what is asked for, and returns it with its paths in their plain form.
///
/// Paths that go through symbolic links of the sandbox are not known here: the driver refuses them.
pub fn check(wanted: &[WantedMount]) -> Result<Vec<WantedMount>, Fault> {
    if wanted.len() > MOUNTS_MAX {
        let text = format!("a sandbox has at most {MOUNTS_MAX} volumes");
        return Err(Fault::invalid(FIELD, text));
    }
    let mut names = BTreeSet::new();
    let mut checked: Vec<WantedMount> = Vec::with_capacity(wanted.len());
    for mount in wanted {
        let name = &mount.name;
        names::volume_name(name).map_err(|fault| Fault::invalid(FIELD, fault.message))?;
        let path = plain(&mount.path)
            .map_err(|why| refused(name, &format!("the path '{}' {why}", shown(&mount.path))))?;
        if !names.insert(name) {
            return Err(refused(name, "it is there twice"));
        }
        if let Some(other) = checked.iter().find(|other| overlap(&other.path, &path)) {
            let why = format!("'{path}' and '{}' overlap", other.path);
            return Err(refused(name, &why));
        }
        checked.push(WantedMount {
            name: name.clone(),
            path,
        });
    }
    Ok(checked)
}

fn refused(name: &str, why: &str) -> Fault {
    Fault::invalid(FIELD, format!("volume '{name}' cannot be mounted: {why}"))
}

fn shown(path: &str) -> String {
    path.chars().take(64).flat_map(char::escape_debug).collect()
}

/// The path without doubled slashes and `.`.
fn plain(path: &str) -> Result<String, String> {
    if !path.starts_with('/') {
        return Err("is not absolute".to_owned());
    }
    if path.len() > MOUNT_PATH_BYTES_MAX {
        return Err(format!("has more than {MOUNT_PATH_BYTES_MAX} bytes"));
    }
    if path.contains('\0') {
        return Err("has a NUL byte".to_owned());
    }
    let mut plain = String::with_capacity(path.len());
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("has '..' in it".to_owned()),
            part if part.len() > 255 => return Err("has a name that is too long".to_owned()),
            part => {
                plain.push('/');
                plain.push_str(part);
            }
        }
    }
    if plain.is_empty() {
        return Err("is the root of the sandbox".to_owned());
    }
    match RESERVED.iter().find(|other| overlap(other, &plain)) {
        Some(other) => Err(format!("overlaps '{other}', which is the server's")),
        None => Ok(plain),
    }
}

/// Whether one of two plain paths is the other, or above it.
fn overlap(one: &str, other: &str) -> bool {
    let above = |upper: &str, lower: &str| {
        lower
            .strip_prefix(upper)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    above(one, other) || above(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounts(pairs: &[(&str, &str)]) -> Vec<WantedMount> {
        let mount = |(name, path): &(&str, &str)| WantedMount {
            name: (*name).to_owned(),
            path: (*path).to_owned(),
        };
        pairs.iter().map(mount).collect()
    }

    #[test]
    fn paths_come_out_plain() {
        let wanted = mounts(&[("a", "/data//./x/"), ("b", "/data/xy"), ("c", "/usr/local")]);
        let plain = mounts(&[("a", "/data/x"), ("b", "/data/xy"), ("c", "/usr/local")]);
        assert_eq!(check(&wanted).expect("fine"), plain);
        assert_eq!(check(&[]).expect("fine"), []);
    }

    #[test]
    fn places_that_are_none_are_refused_by_name() {
        let long = format!("/{}", "x".repeat(256));
        let longer = "/abc".repeat(300);
        for path in [
            "",
            "data",
            "./data",
            "/",
            "//",
            "/.",
            "/a/../b",
            "/..",
            "/a\0b",
            "/proc",
            "/proc/1/x",
            "/sys",
            "/dev",
            "/dev/shm/x",
            "/run",
            "/run/woodfrog",
            "/usr",
            "/usr/lib",
            "/usr/lib/woodfrog/guest",
            &long,
            &longer,
        ] {
            let fault = check(&mounts(&[("data", path)])).expect_err(path);
            assert!(fault.message.contains("'data'"), "{path}: {fault:?}");
        }
        let bad_name = check(&mounts(&[("../x", "/data")]));
        assert!(bad_name.is_err());
    }

    #[test]
    fn nothing_is_mounted_twice_or_within_another() {
        for pair in [
            [("a", "/x"), ("a", "/y")],
            [("a", "/x"), ("b", "/x/")],
            [("a", "/x"), ("b", "/x/y")],
            [("a", "/x/y"), ("b", "/x")],
        ] {
            assert!(check(&mounts(&pair)).is_err(), "{pair:?}");
        }
        let many: Vec<_> = (0..=MOUNTS_MAX)
            .map(|n| (format!("v{n}"), format!("/v/{n}")))
            .map(|(name, path)| WantedMount { name, path })
            .collect();
        assert!(check(&many).is_err());
        assert!(check(&many[1..]).is_ok());
    }
}
