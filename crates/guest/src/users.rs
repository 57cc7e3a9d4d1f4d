//! Users and groups, read from the sandbox's own files: the guest is static and has no NSS.

use std::path::Path;

use woodfrog_guest_proto::ErrorCode;
use woodfrog_linux::caps::CapSet;

use crate::error::{OpResult, fail};

/// Bytes read of passwd or group; what is beyond is ignored.
const MAX_FILE: u64 = 1 << 20;
/// Supplementary groups given to a process.
const MAX_GROUPS: usize = 256;

/// As whom processes run, and to whom files are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acting {
    /// As the user that a request names; takes root's rights.
    AsUsers,
    /// As who runs the guest, with all the rights that one has; any user does.
    AsItself,
}

impl Acting {
    pub(crate) fn of_processes(self, groups: Vec<u32>) -> Option<Vec<u32>> {
        match self {
            Self::AsUsers => Some(groups),
            Self::AsItself => None,
        }
    }

    pub(crate) const fn capabilities(self) -> CapSet {
        match self {
            Self::AsUsers => CapSet::SANDBOX,
            Self::AsItself => CapSet(u64::MAX),
        }
    }

    /// `oom_score_adj` of processes, where it is not the guest's own. The init of a sandbox may be
    /// spared when memory runs out, and what it starts must not be.
    pub(crate) const fn oom_score_adj(self) -> Option<i16> {
        match self {
            Self::AsUsers => Some(0),
            Self::AsItself => None,
        }
    }

    /// Who gets a file that a user makes or writes, if it is given to anybody.
    pub(crate) fn owner(self, user: &User) -> Option<(u32, u32)> {
        match self {
            Self::AsUsers => Some((user.uid, user.gid)),
            Self::AsItself => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
    pub(crate) shell: String,
}

/// Names of the ids of one sandbox, at one moment.
pub(crate) struct Names {
    passwd: String,
    group: String,
}

impl Names {
    /// Reads `passwd` and `group` below `etc`; a missing file is an empty one.
    pub(crate) fn read(etc: &Path) -> Self {
        Self {
            passwd: text(&etc.join("passwd")),
            group: text(&etc.join("group")),
        }
    }

    pub(crate) fn user_name(&self, uid: u32) -> String {
        name_of(&self.passwd, uid)
    }

    pub(crate) fn group_name(&self, gid: u32) -> String {
        name_of(&self.group, gid)
    }

    /// The user called `name`. root exists even where no passwd file says so.
    pub(crate) fn user(&self, name: &str) -> OpResult<User> {
        let line = self
            .passwd
            .lines()
            .find(|l| l.split(':').next() == Some(name));
        let found = line
            .and_then(parse_user)
            .or_else(|| (name == "root").then(root));
        let Some(mut user) = found.filter(|u| !u.name.is_empty()) else {
            return Err(fail(
                ErrorCode::UnknownUser,
                format!("user '{name}' does not exist"),
            ));
        };
        user.groups = self.groups_of(&user);
        Ok(user)
    }

    fn groups_of(&self, user: &User) -> Vec<u32> {
        let mut groups = vec![user.gid];
        for line in self.group.lines() {
            let mut fields = line.split(':').skip(2);
            let (Some(gid), Some(members)) = (fields.next(), fields.next()) else {
                continue;
            };
            let Ok(gid) = gid.parse() else { continue };
            let member = members.split(',').any(|m| m.trim() == user.name);
            if member && !groups.contains(&gid) && groups.len() < MAX_GROUPS {
                groups.push(gid);
            }
        }
        groups
    }
}

fn root() -> User {
    parse_user("root:x:0:0::/root:/bin/sh").unwrap_or(User {
        name: "root".to_owned(),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        home: "/root".to_owned(),
        shell: "/bin/sh".to_owned(),
    })
}

fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let home = fields
        .nth(1)
        .filter(|h| h.starts_with('/'))
        .unwrap_or("/")
        .to_owned();
    let shell = fields
        .next()
        .filter(|s| !s.is_empty())
        .unwrap_or("/bin/sh")
        .to_owned();
    Some(User {
        name,
        uid,
        gid,
        groups: Vec::new(),
        home,
        shell,
    })
}

fn name_of(table: &str, id: u32) -> String {
    let entry = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    });
    entry.unwrap_or_else(|| id.to_string())
}

fn text(path: &Path) -> String {
    use std::io::Read;
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // A file that cannot be read whole is used as far as it could be.
        let _ = file.take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(passwd: &str, group: &str) -> Names {
        Names {
            passwd: passwd.to_owned(),
            group: group.to_owned(),
        }
    }

    #[test]
    fn finds_user_with_groups() {
        let n = names(
            "root:x:0:0:r:/root:/bin/bash\nuser:x:1000:100::/home/user:\n",
            "sudo:x:27:a,user\nx:x:5:\n",
        );
        let user = n.user("user").unwrap();
        assert_eq!(
            (user.uid, user.gid, user.home.as_str()),
            (1000, 100, "/home/user")
        );
        assert_eq!(user.groups, [100, 27]);
        assert_eq!(user.shell, "/bin/sh");
        assert_eq!(n.user_name(1000), "user");
        assert_eq!(n.group_name(7), "7");
    }

    #[test]
    fn unknown_and_broken_lines_are_refused() {
        let n = names("broken\nalso:x:many:1::/:\n:x:1:1::/:\n", "");
        for name in ["nobody", "broken", "also", ""] {
            assert_eq!(n.user(name).unwrap_err().code, ErrorCode::UnknownUser);
        }
        assert_eq!(n.user("root").unwrap().home, "/root");
    }
}
