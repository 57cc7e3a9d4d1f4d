//! Paths as clients write them.

use crate::{Result, VolumeError};

/// Bytes of a path.
const PATH_BYTES_MAX: usize = 4096;
/// Bytes of one name in it.
const NAME_BYTES_MAX: usize = 255;

/// A path in a volume, taken apart: names without `.`, `..`, `/` and NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inside {
    names: Vec<String>,
}

impl Inside {
    /// Takes a path apart; with or without a leading slash it means the same.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let invalid = |what: &str| Err(VolumeError::Invalid(format!("the path {what}")));
        if text.is_empty() {
            return invalid("is empty");
        }
        if text.len() > PATH_BYTES_MAX {
            return invalid("is too long");
        }
        if text.contains('\0') {
            return invalid("has a NUL byte");
        }
        let mut names = Vec::new();
        for name in text.split('/') {
            match name {
                "" | "." => {}
                ".." => return invalid("has `..` in it"),
                name if name.len() > NAME_BYTES_MAX => {
                    return invalid("has a name that is too long");
                }
                name => names.push(name.to_owned()),
            }
        }
        Ok(Self { names })
    }

    /// The names, outermost first; none for the volume itself.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The directory and the name in it; `None` for the volume itself.
    pub(crate) fn split(&self) -> Option<(Self, &str)> {
        let (last, above) = self.names.split_last()?;
        let names = above.to_vec();
        Some((Self { names }, last))
    }

    pub(crate) fn join(&self, name: &str) -> Self {
        let mut names = self.names.clone();
        names.push(name.to_owned());
        Self { names }
    }

    /// As the kernel takes it, relative to the volume.
    pub(crate) fn relative(&self) -> String {
        match self.names.is_empty() {
            true => ".".to_owned(),
            false => self.names.join("/"),
        }
    }

    /// As clients see it.
    pub(crate) fn shown(&self) -> String {
        format!("/{}", self.names.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        for (text, shown) in [
            ("/", "/"),
            (".", "/"),
            ("a", "/a"),
            ("/a/b/", "/a/b"),
            ("//a/./b", "/a/b"),
            ("...", "/..."),
        ] {
            let path = Inside::parse(text).expect(text);
            assert_eq!(path.shown(), shown, "{text}");
        }
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        let deep = "a/".repeat(PATH_BYTES_MAX);
        for bad in ["", "..", "a/../b", "/..", "a\0b", &long, &deep] {
            assert!(Inside::parse(bad).is_err(), "{bad}");
        }
    }
}
