//! What E2B programs expect of any image: a user `user` with a home and, where sudo is installed,
//! the right to use it.

use thiserror::Error;

use super::users::{Users, text};
use super::writer::{Attributes, LayerWriter};
use crate::blocking;
use crate::digest::Digest;
use crate::stack::{LayerStack, StackError, StackKind};
use crate::store::{Layer, LayerStore, StoreError, make_root};

const NAME: &str = "user";
const FIRST_ID: u32 = 1000;
const LAST_ID: u32 = 60_000;

/// Why the layer was not made.
#[derive(Debug, Error)]
pub enum BasicsError {
    #[error("reading the image")]
    Stack(#[from] StackError),
    #[error("storing the layer")]
    Store(#[from] StoreError),
    #[error("the image has no free user id")]
    NoFreeId,
}

struct Edit {
    path: &'static str,
    content: String,
    attributes: Attributes,
}

/// A layer that adds what `layers` (bottom first) lack; `None` when they lack nothing. The user
/// gets uid and gid 1000, or the next free ones.
pub async fn ensure_e2b_basics(
    store: &LayerStore,
    layers: &[Digest],
) -> Result<Option<Layer>, BasicsError> {
    let (store, layers) = (store.clone(), layers.to_vec());
    blocking::run(move |_| {
        let stack = LayerStack::open(&store.paths(&layers)?)?;
        let users = Users::load(&stack)?;
        let (ids, edits) = plan(&stack, &users)?;
        let home = users.home(NAME).unwrap_or("/home/user");
        let homeless = stack.kind(home)? == StackKind::Missing;
        if edits.is_empty() && !homeless {
            return Ok(None);
        }
        let workspace = store.workspace().map_err(StoreError::from)?;
        let root = workspace.path().join("layer");
        make_root(&root).map_err(StoreError::from)?;
        let writer = LayerWriter::new(&stack, &root)?;
        for edit in edits {
            writer.file(edit.path, edit.content.as_bytes(), edit.attributes)?;
        }
        if homeless {
            writer.dir(
                home.as_bytes(),
                Attributes {
                    uid: ids.0,
                    gid: ids.1,
                    mode: 0o755,
                },
            )?;
        }
        drop(writer);
        Ok(Some(store.commit_blocking(&root, None)?))
    })
    .await
}

fn plan(stack: &LayerStack, users: &Users) -> Result<((u32, u32), Vec<Edit>), BasicsError> {
    let mut edits = Vec::new();
    let ids = match users.user(NAME) {
        Some(ids) => ids,
        None => {
            let uid = free_id(&users.passwd)?;
            let gid = match users.gid(NAME) {
                Some(gid) => gid,
                None => {
                    let gid = if taken(&users.group, uid) {
                        free_id(&users.group)?
                    } else {
                        uid
                    };
                    let group = seeded(&users.group, "root:x:0:\n");
                    edits.push(public("/etc/group", format!("{group}{NAME}:x:{gid}:\n")));
                    gid
                }
            };
            let bash = stack.kind("/bin/bash")? == StackKind::File;
            let shell = if bash { "/bin/bash" } else { "/bin/sh" };
            let passwd = seeded(&users.passwd, "root:x:0:0:root:/root:/bin/sh\n");
            let entry = format!("{NAME}:x:{uid}:{gid}::/home/user:{shell}\n");
            edits.push(public("/etc/passwd", passwd + &entry));
            edits.extend(shadow(stack)?);
            (uid, gid)
        }
    };
    let has_sudo = stack.kind("/etc/sudoers")? == StackKind::File;
    if has_sudo && !may_sudo(stack)? {
        let attributes = Attributes {
            uid: 0,
            gid: 0,
            mode: 0o440,
        };
        let content = format!("{NAME} ALL=(ALL:ALL) NOPASSWD: ALL\n");
        edits.push(Edit {
            path: "/etc/sudoers.d/user",
            content,
            attributes,
        });
    }
    Ok((ids, edits))
}

/// A locked password, where passwords live in /etc/shadow.
fn shadow(stack: &LayerStack) -> Result<Option<Edit>, StackError> {
    let Some((_, _, stat)) = stack.walk(b"/etc/shadow")?.leaf else {
        return Ok(None);
    };
    let shadow = text(stack, "/etc/shadow")?;
    if shadow
        .lines()
        .any(|line| line.split(':').next() == Some(NAME))
    {
        return Ok(None);
    }
    let content = format!("{}{NAME}:*:19000:0:99999:7:::\n", ended(&shadow));
    let attributes = Attributes {
        uid: stat.st_uid,
        gid: stat.st_gid,
        mode: stat.st_mode,
    };
    Ok(Some(Edit {
        path: "/etc/shadow",
        content,
        attributes,
    }))
}

fn may_sudo(stack: &LayerStack) -> Result<bool, StackError> {
    let rules = text(stack, "/etc/sudoers.d/user")? + &text(stack, "/etc/sudoers")?;
    Ok(rules
        .lines()
        .any(|rule| rule.starts_with("user ") && rule.contains("NOPASSWD: ALL")))
}

fn public(path: &'static str, content: String) -> Edit {
    Edit {
        path,
        content,
        attributes: Attributes {
            uid: 0,
            gid: 0,
            mode: 0o644,
        },
    }
}

fn seeded(file: &str, seed: &str) -> String {
    if file.trim().is_empty() {
        seed.to_owned()
    } else {
        ended(file)
    }
}

fn ended(file: &str) -> String {
    if file.is_empty() || file.ends_with('\n') {
        file.to_owned()
    } else {
        format!("{file}\n")
    }
}

fn taken(file: &str, id: u32) -> bool {
    file.lines()
        .any(|line| line.split(':').nth(2) == Some(id.to_string().as_str()))
}

fn free_id(file: &str) -> Result<u32, BasicsError> {
    (FIRST_ID..LAST_ID)
        .find(|id| !taken(file, *id))
        .ok_or(BasicsError::NoFreeId)
}
