//! Knowing when a process ends that need not be our child.

use std::os::fd::{AsFd as _, OwnedFd};

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// Tells when a process has ended. May be awaited by several tasks.
#[derive(Debug, Clone)]
pub struct Ended(watch::Receiver<bool>);

impl Ended {
    /// Watches the process of a pidfd, which becomes readable when it has ended.
    ///
    /// # Errors
    /// The descriptor cannot be waited for.
    #[expect(
        deprecated,
        reason = "the replacement is unsafe; an owned descriptor keeps its promise"
    )]
    pub fn watch(pidfd: OwnedFd) -> std::io::Result<Self> {
        let pidfd = AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE)?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            // Ends early when nobody is interested any more.
            tokio::select! {
                ready = pidfd.readable() => if ready.is_ok() {
                    reap(&pidfd);
                    sender.send_replace(true);
                },
                () = sender.closed() => {}
            }
        });
        Ok(Self(receiver))
    }

    /// Returns once it has ended, and never if that cannot be known any more: a runtime that goes
    /// down ends the watching too, which must not look like the end of the process.
    pub async fn wait(&self) {
        let mut ended = self.0.clone();
        if ended.wait_for(|ended| *ended).await.is_err() {
            std::future::pending().await
        }
    }
}

/// The init of a restored sandbox is our child. For what is not ours this does nothing.
fn reap(pidfd: &AsyncFd<OwnedFd>) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), options);
}
