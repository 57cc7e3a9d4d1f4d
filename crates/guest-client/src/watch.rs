//! Watching a directory.

use std::collections::VecDeque;

use woodfrog_guest_proto::{
    Empty, Frame, Request, WatchEvent, WatchPage, WatchRequest, parse_json,
};

use crate::{GuestClient, GuestError, link::Link};

/// Changes in one directory tree. Dropping it ends the watch.
pub struct WatchStream {
    link: Link,
    page: VecDeque<WatchEvent>,
    ended: bool,
}

impl WatchStream {
    /// The next change; `None` when the directory itself is gone.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, GuestError> {
        loop {
            if let Some(event) = self.page.pop_front() {
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            match self.link.recv().await? {
                Frame::Event(payload) => {
                    self.page = parse_json::<WatchPage>(&payload)?.events.into();
                }
                Frame::End(_) => self.ended = true,
                _ => return Err(GuestError::Protocol("not part of a watch".to_owned())),
            }
        }
    }
}

impl GuestClient {
    /// Returns once the watch is armed: every later change is reported.
    pub async fn watch(&self, request: WatchRequest) -> Result<WatchStream, GuestError> {
        self.in_time(async {
            let mut link = self.open(&Request::Watch(request)).await?;
            let _: Empty = link.reply().await?;
            Ok(WatchStream {
                link,
                page: VecDeque::new(),
                ended: false,
            })
        })
        .await
    }
}
