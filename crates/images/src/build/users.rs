//! Users and groups of an image, from its own passwd and group files.

use crate::stack::{LayerStack, StackError};

/// Of passwd, group, shadow and the like.
pub(super) const MAX_FILE: u64 = 4 * 1024 * 1024;

pub(super) struct Users {
    pub(super) passwd: String,
    pub(super) group: String,
}

impl Users {
    pub(super) fn load(stack: &LayerStack) -> Result<Self, StackError> {
        Ok(Self {
            passwd: text(stack, "/etc/passwd")?,
            group: text(stack, "/etc/group")?,
        })
    }

    /// uid, primary gid of a user.
    pub(super) fn user(&self, name: &str) -> Option<(u32, u32)> {
        let line = line(&self.passwd, name)?;
        Some((line.get(2)?.parse().ok()?, line.get(3)?.parse().ok()?))
    }

    pub(super) fn gid(&self, name: &str) -> Option<u32> {
        line(&self.group, name)?.get(2)?.parse().ok()
    }

    pub(super) fn home(&self, name: &str) -> Option<&str> {
        line(&self.passwd, name)?
            .get(5)
            .copied()
            .filter(|home| home.starts_with('/'))
    }

    /// Ids of `user`, `user:group`, `uid`, `uid:gid`. Without a group: the one named like the
    /// user, else the user's own.
    pub(super) fn owner(&self, spec: &str) -> Option<(u32, u32)> {
        let (user, group) = spec
            .split_once(':')
            .map_or((spec, None), |(u, g)| (u, Some(g)));
        let id = |text: &str| text.parse::<u32>().ok().filter(|id| *id <= 65_535);
        let known = self.user(user);
        let uid = known.map(|(uid, _)| uid).or_else(|| id(user))?;
        let gid = match group.filter(|group| !group.is_empty()) {
            Some(group) => self.gid(group).or_else(|| id(group))?,
            None => self.gid(user).or(known.map(|(_, gid)| gid)).unwrap_or(uid),
        };
        (uid <= 65_535 && gid <= 65_535).then_some((uid, gid))
    }
}

fn line<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    file.lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|line| line[0] == name)
}

/// Empty when the file is missing.
pub(super) fn text(stack: &LayerStack, path: &str) -> Result<String, StackError> {
    match stack.read_file(path, MAX_FILE) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(StackError::NotFound(_)) => Ok(String::new()),
        Err(error) => Err(error),
    }
}
