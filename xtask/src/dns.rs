//! A name server for one wildcard domain on loopback: stock Debian resolves no `*.localhost`.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

/// Answers every A query with 127.0.0.1 and every other query with an empty answer.
pub(crate) struct WildcardDns {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl WildcardDns {
    /// Serves on `address`, which must be a loopback address with port 53.
    pub(crate) fn start(address: &str) -> Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut query = [0_u8; 1500];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut query)
                    && let Some(reply) = answer(&query[..length])
                {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for WildcardDns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The reply to a query with one question (RFC 1035, section 4.1).
fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let header = query.get(..12)?;
    let mut end = 12;
    while *query.get(end)? != 0 {
        end += 1 + usize::from(query[end]);
    }
    let question = query.get(12..end + 5)?;
    let is_a = question[question.len() - 4..question.len() - 2] == [0, 1];
    let mut reply = Vec::with_capacity(query.len() + 16);
    reply.extend_from_slice(&header[..2]);
    reply.extend_from_slice(&[0x85, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    reply.extend_from_slice(question);
    if is_a {
        // A pointer to the question's name, type A, class IN, 60 s, four bytes of address.
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queries_get_loopback_and_others_nothing() {
        let mut query = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend_from_slice(b"\x01a\x04test\x00\x00\x01\x00\x01");
        let reply = answer(&query).expect("reply");
        assert_eq!(&reply[..2], &[7, 9]);
        assert!(reply.ends_with(&[127, 0, 0, 1]));
        let aaaa = query.len() - 3;
        query[aaaa] = 28;
        assert_eq!(answer(&query).expect("reply")[7], 0);
        assert!(answer(&query[..5]).is_none());
    }
}
