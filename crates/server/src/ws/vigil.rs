//! Whether a client lives, and who wants to know; also while something is done for it.

use tokio::sync::{mpsc, oneshot};

use super::link::{Link, Received};

/// Who comes and asks whether the client that is attached lives.
pub(super) type Asker = oneshot::Sender<()>;

/// See the module.
pub(super) struct Vigil {
    /// Somebody waits to hear whether the client lives, which the pong to this ping shows. Nothing
    /// else does: it may have been sent before the connection broke, and be read only now.
    knock: Option<(u64, Asker)>,
    /// The last of the courier's pongs that came while something was done.
    pong: Option<u64>,
    /// The ping behind the name of a new sandbox: until something shows that the client has read
    /// that far, nobody is known to have what opens the sandbox.
    unread: Option<u64>,
}

impl Vigil {
    /// `unread`: the ping behind the name of a new sandbox.
    pub(super) const fn new(unread: Option<u64>) -> Self {
        Self {
            knock: None,
            pong: None,
            unread,
        }
    }

    /// Whether nobody is known to have what opens the sandbox.
    pub(super) const fn is_unread(&self) -> bool {
        self.unread.is_some()
    }

    /// The client said something that it says only to a sandbox that it knows.
    pub(super) const fn heard(&mut self) {
        self.unread = None;
    }

    /// The client answered this ping.
    pub(super) fn alive(&mut self, number: u64) {
        self.unread = self.unread.filter(|asked| *asked > number);
        if let Some((_, asker)) = self.knock.take_if(|(asked, _)| *asked == number) {
            // Whoever asked may have gone.
            let _gone = asker.send(());
        }
    }

    /// Somebody asks; it has what opens the sandbox. `false`: the client is gone.
    pub(super) async fn knocked(&mut self, link: &mut Link, asker: Asker) -> bool {
        self.heard();
        let asked = link.ping().await;
        self.knock = asked.map(|asked| (asked, asker));
        asked.is_some()
    }

    /// The courier's pong that came while something was done.
    pub(super) const fn take_pong(&mut self) -> Option<u64> {
        self.pong.take()
    }

    /// Does work to its end, whatever becomes of the client. Who asks meanwhile whether it lives
    /// is answered; what it says meanwhile is kept.
    pub(super) async fn during<T>(
        &mut self,
        link: &mut Link,
        knocks: &mut mpsc::Receiver<Asker>,
        work: impl Future<Output = T> + Send,
    ) -> T {
        let mut work = std::pin::pin!(work);
        let mut gone = false;
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                sign = link.next_sign(), if !gone => match sign {
                    Received::Closed => {
                        gone = true;
                        // Whoever asks hears of it at once.
                        self.knock = None;
                    }
                    Received::Alive(number) => self.alive(number),
                    Received::Pong(number) => {
                        self.heard();
                        self.pong = self.pong.max(Some(number));
                    }
                    Received::Text(_) | Received::Binary | Received::Other => {}
                },
                Some(asker) = knocks.recv() => match gone {
                    true => {
                        self.heard();
                        drop(asker);
                    }
                    false => {
                        self.knocked(link, asker).await;
                    }
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_sandbox_is_known_once_its_client_answers_behind_the_name() {
        let mut vigil = Vigil::new(Some(3));
        vigil.alive(2);
        assert!(vigil.is_unread(), "an earlier one");
        vigil.alive(3);
        assert!(!vigil.is_unread());
        let mut vigil = Vigil::new(Some(3));
        vigil.heard();
        assert!(!vigil.is_unread());
        assert!(!Vigil::new(None).is_unread(), "it was not made now");
    }

    #[test]
    fn who_knocks_is_answered_by_its_own_ping_alone() {
        let mut vigil = Vigil::new(None);
        let (asker, mut answer) = oneshot::channel();
        vigil.knock = Some((7, asker));
        vigil.alive(6);
        assert!(answer.try_recv().is_err());
        vigil.alive(7);
        assert_eq!(answer.try_recv(), Ok(()));
    }
}
