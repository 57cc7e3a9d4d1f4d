//! Files of the sandbox. Operations run with root's rights, as PID 1 has them; the acting user
//! decides what `~` and relative paths mean, and owns what is created.

use std::{rc::Rc, sync::Arc};

use woodfrog_guest_proto::{Empty, EntryInfo, EntryReply, ErrorCode, PathRequest, Request};

use crate::{
    conn::Conn,
    error::{OpResult, fail, invalid},
    guest::Guest,
    serve::end,
    users::Names,
};

mod compose;
mod create;
mod entry;
mod list;
mod metadata;
mod path;
mod relocate;
mod remove;
mod transfer;
mod watch;
mod watch_tree;

pub(crate) use path::resolve;

/// Everything an operation needs, free to go to another thread.
#[derive(Clone)]
struct Place {
    path: String,
    /// Who gets what is made, if it is given to anybody.
    owner: Option<(u32, u32)>,
    names: Arc<Names>,
    prefix: Option<String>,
}

impl Place {
    fn of(guest: &Guest, at: &PathRequest) -> OpResult<Self> {
        if at.path.contains('\0') {
            return Err(invalid("the path contains a NUL byte"));
        }
        let user = guest.user(at.user.as_deref())?;
        let prefix = at.xattr_prefix.clone().filter(|p| !p.is_empty());
        Ok(Self {
            path: resolve(&at.path, &user.home),
            owner: guest.acting.owner(&user),
            names: guest.shared_names(),
            prefix,
        })
    }

    fn entry(&self) -> OpResult<EntryInfo> {
        entry::entry(&self.path, &self.names, self.prefix.as_deref())
    }
}

/// Runs something that may wait for a disk on a helper thread.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> OpResult<T> + Send + 'static,
) -> OpResult<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(fail(ErrorCode::Internal, "a helper thread failed")))
}

/// Runs one file operation.
pub(crate) async fn operate(guest: &Rc<Guest>, conn: &mut Conn, request: Request) -> OpResult<()> {
    let entry = match request {
        Request::Stat(at) => {
            let place = Place::of(guest, &at)?;
            blocking(move || place.entry()).await?
        }
        Request::Mkdir(request) => {
            let place = Place::of(guest, &request.at)?;
            blocking(move || create::mkdir(&place, request.mode)).await?
        }
        Request::Move(request) => {
            let place = Place::of(guest, &request.from)?;
            let to = Place::of(
                guest,
                &PathRequest {
                    path: request.to,
                    ..request.from
                },
            )?;
            blocking(move || create::rename(&place, &to)).await?
        }
        Request::Compose(request) => {
            let place = Place::of(guest, &request.to)?;
            let source = |path: String| {
                let user = request.to.user.clone();
                let at = PathRequest {
                    path,
                    user,
                    ..PathRequest::default()
                };
                Place::of(guest, &at)
            };
            let sources = request.sources.into_iter().map(source);
            let sources = sources.collect::<OpResult<Vec<_>>>()?;
            blocking(move || compose::compose(&place, &sources)).await?
        }
        Request::Remove(at) => {
            let place = Place::of(guest, &at)?;
            blocking(move || remove::remove(&place.path)).await?;
            return end(conn, &Empty {}).await;
        }
        Request::ListDir(request) => {
            let place = Place::of(guest, &request.at)?;
            return list::list(conn, place, &request).await;
        }
        Request::Read(request) => {
            let place = Place::of(guest, &request.at)?;
            return transfer::read(conn, place, request.offset, request.length).await;
        }
        Request::Write(request) => {
            let place = Place::of(guest, &request.at)?;
            return transfer::write(conn, place, request).await;
        }
        Request::Open(request) => {
            let place = Place::of(guest, &request.at)?;
            return transfer::open(conn, place, request.open).await;
        }
        Request::Watch(request) => {
            let place = Place::of(guest, &request.at)?;
            return watch::watch(conn, &place, &request).await;
        }
        _ => return Err(fail(ErrorCode::Internal, "not a file operation")),
    };
    end(conn, &EntryReply { entry }).await
}
