//! Watches a directory for one connection.

use woodfrog_guest_proto::{
    Empty, ErrorCode, FrameKind, NetworkMounts, WatchEntries, WatchEvent, WatchKind, WatchPage,
    WatchRequest, limits,
};

use super::{Place, entry::entry, watch_tree::Tree};
use crate::{
    conn::Conn,
    error::{OpResult, fail, invalid, system},
    serve::end,
};

/// `f_type` of file systems whose changes may come from elsewhere: NFS, SMB, SMB2, CIFS, FUSE,
/// AFS, Ceph, 9P.
const NETWORK: [u64; 8] = [
    0x6969,
    0x517B,
    0xFE53_4D42,
    0xFF53_4D42,
    0x6573_5546,
    0x5346_414F,
    0x00C3_6400,
    0x0102_1997,
];

pub(super) async fn watch(conn: &Conn, place: &Place, request: &WatchRequest) -> OpResult<()> {
    let what = format!("path '{}'", place.path);
    let meta = std::fs::metadata(&place.path).map_err(|e| system(&what, e))?;
    if !meta.is_dir() {
        return Err(fail(
            ErrorCode::NotADirectory,
            format!("{what} is not a directory"),
        ));
    }
    if request.network_mounts == NetworkMounts::Refuse {
        let fs = rustix::fs::statfs(place.path.as_str()).map_err(|e| system(&what, e))?;
        if NETWORK.contains(&(fs.f_type as u64 & 0xffff_ffff)) {
            return Err(invalid(format!("{what} is on a network mount")));
        }
    }
    let mut tree = Tree::new(&place.path, request.depth)?;
    if conn.send(FrameKind::Reply, &Empty {}).await.is_err() {
        return Ok(());
    }
    while !tree.ended {
        let mut events = tokio::select! {
            events = tree.next() => events?,
            () = conn.hangup() => return Ok(()),
        };
        if request.entries == WatchEntries::Include {
            events
                .iter_mut()
                .for_each(|event| add_entry(&tree, place, event));
        }
        let mut rest = events.into_iter().peekable();
        while rest.peek().is_some() {
            let page = WatchPage {
                events: rest.by_ref().take(limits::WATCH_PAGE / 4).collect(),
            };
            if conn.send(FrameKind::Event, &page).await.is_err() {
                return Ok(());
            }
        }
    }
    end(conn, &Empty {}).await
}

/// The entry as it is now; it may be gone or something else already.
fn add_entry(tree: &Tree, place: &Place, event: &mut WatchEvent) {
    if matches!(
        event.kind,
        WatchKind::Create | WatchKind::Write | WatchKind::Chmod
    ) {
        let path = tree.absolute(&event.name);
        event.entry = entry(&path, &place.names, place.prefix.as_deref()).ok();
    }
}
