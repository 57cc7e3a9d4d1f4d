//! `COPY` steps: a layer from an uploaded archive.
//!
//! The archive holds the files under their paths relative to the build context, globs already
//! expanded. A file lands at `dst`, or in it when `dst` is a directory or ends with a slash; a
//! directory's content is merged into `dst`. Directories made on the way belong to root.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Stat};
use rustix::process::{Gid, Uid};
use thiserror::Error;

use super::users::Users;
use super::writer::{Attributes, LayerWriter};
use crate::blocking;
use crate::config::join_absolute;
use crate::digest::Digest;
use crate::progress::Progress;
use crate::stack::{LayerStack, Node, StackError};
use crate::store::{Layer, LayerStore, StoreError, make_root};
use crate::unpack::{Limits, Owners, UnpackError, Whiteouts, unpack_into};
use crate::vfs;

/// What a `COPY` step asks for.
#[derive(Clone, Debug)]
pub struct CopySpec {
    /// As the user wrote it, possibly a glob.
    pub src: String,
    pub dst: String,
    /// `user` or `user:group`; `None` means `user` below.
    pub owner: Option<String>,
    /// Of everything copied, directories too; `None` keeps the archive's modes.
    pub mode: Option<u32>,
    /// The build's present user.
    pub user: String,
    /// The build's present working directory; `None` means the user's home.
    pub workdir: Option<String>,
}

/// Why there is no layer.
#[derive(Debug, Error)]
pub enum CopyError {
    #[error("the archive does not hold `{0}`")]
    MissingSource(String),
    #[error("the image has no user or group `{0}`")]
    UnknownOwner(String),
    #[error("`{0}` is a directory in one place and a file in the other")]
    Conflict(String),
    #[error("cannot unpack the uploaded files")]
    Unpack(#[from] UnpackError),
    #[error("cannot place the files")]
    Stack(#[from] StackError),
    #[error("storing the layer")]
    Store(#[from] StoreError),
    #[error("copying files")]
    Io(#[from] io::Error),
}

/// Makes the layer of a `COPY` step on top of `layers` (bottom first) from a tar archive (plain,
/// gzip or zstd). The same input gives the same layer.
pub async fn prepare_copy_layer(
    store: &LayerStore,
    layers: &[Digest],
    archive: impl Read + Send + 'static,
    spec: CopySpec,
    limits: Limits,
) -> Result<Layer, CopyError> {
    let (store, layers) = (store.clone(), layers.to_vec());
    blocking::run(move |cancelled| {
        let stack = LayerStack::open(&store.paths(&layers)?)?;
        let workspace = store.workspace()?;
        let context = workspace.path().join("context");
        let root = workspace.path().join("layer");
        make_root(&context)?;
        make_root(&root)?;
        let how = (Whiteouts::Literal, Owners::Root);
        unpack_into(
            &context,
            archive,
            limits,
            how,
            &Progress::none(),
            &cancelled,
        )?;
        place(&stack, &vfs::open_dir(&context)?, &root, &spec)?;
        Ok(store.commit_blocking(&root, None)?)
    })
    .await
}

fn place(
    stack: &LayerStack,
    context: &OwnedFd,
    root: &std::path::Path,
    spec: &CopySpec,
) -> Result<(), CopyError> {
    let users = Users::load(stack)?;
    let owner = spec
        .owner
        .as_deref()
        .filter(|owner| !owner.is_empty())
        .unwrap_or(&spec.user);
    let ids = users
        .owner(owner)
        .ok_or_else(|| CopyError::UnknownOwner(owner.to_owned()))?;
    let home = users.home(&spec.user).unwrap_or("/");
    let dst = join_absolute(spec.workdir.as_deref().unwrap_or(home), &spec.dst);
    let copy = Copy {
        writer: LayerWriter::new(stack, root)?,
        ids,
        mode: spec.mode,
    };

    let missing = || CopyError::MissingSource(spec.src.clone());
    let base = join_absolute("/", &glob_base(&spec.src));
    let (parent, name) = base.rsplit_once('/').unwrap_or_default();
    let parent = vfs::open_dir_beneath(context, vfs::os(parent.trim_start_matches('/').as_bytes()))
        .map_err(|_| missing())?;
    let name = if name.is_empty() { "." } else { name };
    let stat = vfs::stat_at(&parent, name)?.ok_or_else(missing)?;
    if vfs::kind(&stat) == FileType::Directory {
        copy.merge(vfs::open_subdir(&parent, name)?.as_fd(), dst.as_bytes())
    } else {
        let found = stack.walk(dst.as_bytes())?;
        let into = (found.leaf.is_none() && found.missing.is_empty())
            || matches!(spec.dst.rsplit('/').next(), Some("" | "."));
        let (dir, target) = match dst.rsplit_once('/') {
            Some((dir, target)) if !into => (dir, target),
            _ => (dst.as_str(), name),
        };
        copy.leaf(
            parent.as_fd(),
            name.as_bytes(),
            &stat,
            dir.as_bytes(),
            target.as_bytes(),
        )
    }
}

struct Copy<'a> {
    writer: LayerWriter<'a>,
    ids: (u32, u32),
    mode: Option<u32>,
}

impl Copy<'_> {
    /// Moves the content of `source` into the directory `dst`.
    fn merge(&self, source: BorrowedFd<'_>, dst: &[u8]) -> Result<(), CopyError> {
        self.writer.dir(dst, Attributes::ROOT_DIR)?;
        for name in vfs::names(source)? {
            let name = name.as_bytes();
            let stat =
                vfs::stat_at(source, name)?.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
            if vfs::kind(&stat) != FileType::Directory {
                self.leaf(source, name, &stat, dst, name)?;
                continue;
            }
            let path = [dst, b"/", name].concat();
            let mode = self.mode.unwrap_or(stat.st_mode);
            self.writer.dir(
                &path,
                Attributes {
                    uid: self.ids.0,
                    gid: self.ids.1,
                    mode,
                },
            )?;
            self.merge(vfs::open_subdir(source, name)?.as_fd(), &path)?;
        }
        Ok(())
    }

    /// Moves a file or symlink to `dir`/`target`, in the place of a file or symlink there.
    fn leaf(
        &self,
        source: BorrowedFd<'_>,
        name: &[u8],
        stat: &Stat,
        dir: &[u8],
        target: &[u8],
    ) -> Result<(), CopyError> {
        let found = self.writer.stack.walk(dir)?;
        if let (true, Some(below)) = (found.missing.is_empty(), found.dirs.last())
            && matches!(below.lookup(target)?, Some(Node::Dir(_)))
        {
            let path = [dir, b"/", target].concat();
            return Err(CopyError::Conflict(
                String::from_utf8_lossy(&path).into_owned(),
            ));
        }
        let into = self.writer.dir(dir, Attributes::ROOT_DIR)?;
        let (uid, gid) = (Uid::from_raw(self.ids.0), Gid::from_raw(self.ids.1));
        rustix::fs::chownat(
            source,
            name,
            Some(uid),
            Some(gid),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(io::Error::from)?;
        if let (Some(mode), FileType::RegularFile) = (self.mode, vfs::kind(stat)) {
            let file = vfs::open_file(source, name)?;
            rustix::fs::fchmod(file, vfs::mode_of(mode)).map_err(io::Error::from)?;
        }
        rustix::fs::renameat(source, name, into, target).map_err(io::Error::from)?;
        Ok(())
    }
}

/// The part of a source before its first glob component: the archive holds what matched.
fn glob_base(src: &str) -> String {
    let parts = src
        .split('/')
        .take_while(|part| !part.contains(['*', '?', '[', '{']));
    parts.collect::<Vec<_>>().join("/")
}
