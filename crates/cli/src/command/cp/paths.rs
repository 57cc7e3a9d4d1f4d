//! What is copied where.

use std::path::PathBuf;

use woodfrog_types::SandboxId;

use crate::command::Usage;

/// A file inside a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remote {
    pub(super) sandbox: String,
    /// As it was given: absolute, `~/…` or relative to the user's home.
    path: String,
}

/// A file on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Local {
    /// `-`: standard input or output.
    Standard,
    File(PathBuf),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    Upload(Local, Remote),
    Download(Remote, Local),
}

enum Side {
    Here(Local),
    There(Remote),
}

impl Plan {
    pub(super) fn parse(from: &str, to: &str) -> Result<Self, Usage> {
        match (side(from)?, side(to)?) {
            (Side::Here(local), Side::There(remote)) => Ok(Self::Upload(local, remote)),
            (Side::There(remote), Side::Here(local)) => Ok(Self::Download(remote, local)),
            (Side::Here(_), Side::Here(_)) => Err(Usage(
                "one side must be in a sandbox: ID:PATH, as in `woodfrog sandbox list`".into(),
            )),
            (Side::There(_), Side::There(_)) => Err(Usage(
                "one side must be on this machine; use `-` and a pipe between two sandboxes".into(),
            )),
        }
    }
}

/// Only a whole sandbox id makes a side remote, so local names may have colons.
fn side(text: &str) -> Result<Side, Usage> {
    if text == "-" {
        return Ok(Side::Here(Local::Standard));
    }
    if let Some((id, path)) = text.split_once(':')
        && id.parse::<SandboxId>().is_ok()
    {
        return Ok(Side::There(Remote {
            sandbox: id.to_owned(),
            path: path.to_owned(),
        }));
    }
    if text.is_empty() {
        return Err(Usage("a path must not be empty".into()));
    }
    Ok(Side::Here(Local::File(text.into())))
}

impl Remote {
    /// The path of a file to be read.
    pub(super) fn file_path(&self) -> Result<&str, Usage> {
        if self.path.is_empty() || self.path.ends_with('/') {
            return Err(Usage(format!(
                "`{}:{}` names a directory; only files are copied",
                self.sandbox, self.path
            )));
        }
        Ok(&self.path)
    }

    /// The last part of the path.
    pub(super) fn file_name(&self) -> Result<&str, Usage> {
        let path = self.file_path()?;
        Ok(path.rsplit('/').next().unwrap_or(path))
    }

    /// The path that a local file is written to: below a directory it keeps its name.
    pub(super) fn path_for(&self, local: &Local) -> Result<String, Usage> {
        if let Ok(path) = self.file_path() {
            return Ok(path.to_owned());
        }
        let name = match local {
            Local::File(path) => path.file_name().and_then(|name| name.to_str()),
            Local::Standard => None,
        };
        match name {
            Some(name) => Ok(format!("{}{name}", self.path)),
            None => Err(Usage("name the file in the sandbox: ID:PATH".into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "sb01234567890123456789abcdef";

    fn remote(path: &str) -> Remote {
        Remote {
            sandbox: ID.into(),
            path: path.into(),
        }
    }

    #[test]
    fn one_side_is_in_a_sandbox() {
        let there = format!("{ID}:/tmp/a:b");
        assert_eq!(
            Plan::parse("x", &there).expect("up"),
            Plan::Upload(Local::File("x".into()), remote("/tmp/a:b"))
        );
        assert_eq!(
            Plan::parse(&there, "-").expect("down"),
            Plan::Download(remote("/tmp/a:b"), Local::Standard)
        );
        assert!(Plan::parse("a", "b").is_err());
        assert!(Plan::parse(&there, &there).is_err());
        assert!(Plan::parse("", &there).is_err());
        // Not a sandbox id: a local file with a colon.
        assert_eq!(
            Plan::parse("sb1:x", &there).expect("up"),
            Plan::Upload(Local::File("sb1:x".into()), remote("/tmp/a:b"))
        );
    }

    #[test]
    fn a_directory_keeps_the_file_s_name() {
        let file = Local::File("/etc/hosts".into());
        assert_eq!(
            remote("/tmp/").path_for(&file).expect("named"),
            "/tmp/hosts"
        );
        assert_eq!(remote("").path_for(&file).expect("named"), "hosts");
        assert_eq!(remote("x").path_for(&file).expect("named"), "x");
        assert!(remote("/tmp/").path_for(&Local::Standard).is_err());
    }

    #[test]
    fn a_directory_is_not_copied_out() {
        assert!(remote("/tmp/").file_path().is_err());
        assert_eq!(remote("/tmp/x").file_name().expect("file"), "x");
    }
}
