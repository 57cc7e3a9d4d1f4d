//! Entries and listings.

use std::collections::VecDeque;
use std::time::Duration;

use woodfrog_guest_proto::{
    ComposeRequest, EntryInfo, EntryReply, Frame, ListEnd, ListPage, ListRequest, MkdirRequest,
    MoveRequest, PathRequest, Request, limits, parse_json,
};

use crate::{GuestClient, GuestError, link::Link};

/// JSON bytes of a listing taken into memory; larger ones are for [`GuestClient::list_stream`].
const MAX_LISTING_BYTES: usize = 128 << 20;

/// How long joining files, or moving them to another file system, may take: they can be as large as
/// the disk.
const COPY_MAX: Duration = Duration::from_secs(1800);

/// A whole listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub entries: Vec<EntryInfo>,
    /// There were more than asked for.
    pub truncated: bool,
}

/// A listing as it arrives.
pub struct ListStream {
    link: Link,
    page: VecDeque<EntryInfo>,
    left: u64,
    bytes: usize,
    end: Option<ListEnd>,
}

impl ListStream {
    /// The next entry, parents first; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<EntryInfo>, GuestError> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                return Ok(Some(entry));
            }
            if self.end.is_some() {
                return Ok(None);
            }
            match self.link.recv().await? {
                Frame::Event(payload) => {
                    self.bytes = self.bytes.saturating_add(payload.len());
                    self.page = parse_json::<ListPage>(&payload)?.entries.into();
                    let breach = || GuestError::Protocol("more entries than asked for".to_owned());
                    self.left = self
                        .left
                        .checked_sub(self.page.len() as u64)
                        .ok_or_else(breach)?;
                }
                Frame::End(payload) => self.end = Some(parse_json(&payload)?),
                _ => return Err(GuestError::Protocol("not part of a listing".to_owned())),
            }
        }
    }

    /// Whether entries are missing; known after the end.
    pub fn truncated(&self) -> bool {
        self.end.is_some_and(|end| end.truncated)
    }
}

impl GuestClient {
    pub async fn stat(&self, at: PathRequest) -> Result<EntryInfo, GuestError> {
        self.entry(&Request::Stat(at)).await
    }

    /// Makes a directory and its parents; `already_exists` when it is there.
    pub async fn mkdir(&self, request: MkdirRequest) -> Result<EntryInfo, GuestError> {
        self.entry(&Request::Mkdir(request)).await
    }

    /// Moves or renames; the parents of the target are made. The entry is that of the new place.
    pub async fn rename(&self, request: MoveRequest) -> Result<EntryInfo, GuestError> {
        let patient = self.clone().with_deadline(COPY_MAX);
        patient.entry(&Request::Move(request)).await
    }

    /// Joins files into one and removes them. The entry is that of the joined file.
    pub async fn compose(&self, request: ComposeRequest) -> Result<EntryInfo, GuestError> {
        let patient = self.clone().with_deadline(COPY_MAX);
        patient.entry(&Request::Compose(request)).await
    }

    /// Removes a file or a whole tree; nothing there is fine.
    pub async fn remove(&self, at: PathRequest) -> Result<(), GuestError> {
        self.command(&Request::Remove(at)).await
    }

    /// A listing that may be large.
    pub async fn list_stream(&self, request: ListRequest) -> Result<ListStream, GuestError> {
        let most = request
            .max_entries
            .unwrap_or(limits::DEFAULT_LIST)
            .min(limits::MAX_LIST);
        let link = self.in_time(self.open(&Request::ListDir(request))).await?;
        Ok(ListStream {
            link,
            page: VecDeque::new(),
            left: u64::from(most),
            bytes: 0,
            end: None,
        })
    }

    /// A listing in memory.
    pub async fn list(&self, request: ListRequest) -> Result<Listing, GuestError> {
        self.in_time(async {
            let mut stream = self.list_stream(request).await?;
            let mut entries = Vec::new();
            while let Some(entry) = stream.next().await? {
                entries.push(entry);
                if stream.bytes > MAX_LISTING_BYTES {
                    return Err(GuestError::Protocol("listing is too large".to_owned()));
                }
            }
            Ok(Listing {
                entries,
                truncated: stream.truncated(),
            })
        })
        .await
    }

    async fn entry(&self, request: &Request) -> Result<EntryInfo, GuestError> {
        Ok(self.call::<EntryReply>(request).await?.entry)
    }
}
