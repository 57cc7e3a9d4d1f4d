//! An entry on its way to many who follow one session, and the same bytes without a server.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::epoll;
use woodfrog_testkit::Server;

use super::http::Session;
use crate::bench::sample::Sample;

/// Streams that follow one session while its agent speaks.
const FOLLOWERS: usize = 1_000;
/// Entries that the agent says while followers listen.
const SAID: u64 = 200;
/// Between two entries, milliseconds: one row each.
const PACES: [u64; 2] = [100, 20];
/// Nothing comes for that long: something is wrong.
const SILENCE: Duration = Duration::from_secs(60);
/// What a follower of the limit gets at a time: about as much as the server sends.
const FRAME: usize = 300;

/// From an entry's time in the log to its arrival at each of many followers.
pub(super) fn all(server: &Server) -> Result<Vec<Sample>> {
    let mut rows = Vec::new();
    for pace in PACES {
        let mut session = Session::new(server)?;
        let after = session.last()?;
        let streams = (0..FOLLOWERS).map(|_| Ok(session.follow(after)?.into_inner()));
        let streams = streams.collect::<Result<Vec<_>>>()?;
        let listening = std::thread::spawn(move || listen(streams, told));
        session.prompt(&format!("mock: chunks {SAID} 64 {pace}"))?;
        let heard = listening.join();
        let millis = heard.map_err(|_| anyhow::anyhow!("the followers panicked"))??;
        session.remove()?;
        let name = format!(
            "an entry to each of {FOLLOWERS} followers (SSE), {} entries/s",
            1000 / pace
        );
        rows.push(shown(&name, millis));
        rows.push(bare(pace)?);
    }
    Ok(rows)
}

fn shown(name: &str, millis: Vec<f64>) -> Sample {
    let row = Sample::new(name, millis);
    println!("{row}");
    row
}

/// The same without a server: one thread writes to one socket after the other.
fn bare(pace: u64) -> Result<Sample> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..FOLLOWERS {
        theirs.push(TcpStream::connect(address)?);
        let one = listener.accept()?.0;
        one.set_nodelay(true)?;
        ours.push(one);
    }
    let listening = std::thread::spawn(move || listen(theirs, told));
    let mut next = Instant::now();
    for number in 0..=SAID {
        let kind = if number == SAID {
            "turn.ended"
        } else {
            "message"
        };
        let frame = format!(
            "data: {{\"kind\":\"{kind}\",\"at\":{:.3},\"pad\":\"",
            now()?
        );
        let frame = format!("{frame}{}\"}}\n\n", "x".repeat(FRAME - frame.len()));
        for stream in &mut ours {
            stream.write_all(frame.as_bytes())?;
        }
        next += Duration::from_millis(pace);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let heard = listening.join();
    let millis = heard.map_err(|_| anyhow::anyhow!("the followers panicked"))??;
    let name = format!(
        "limit: one thread writes to each of {FOLLOWERS} sockets, {} times/s",
        1000 / pace
    );
    Ok(shown(&name, millis))
}

/// Milliseconds since 1970.
fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1000.0)
}

/// What a line says.
enum Told {
    Nothing,
    /// An entry of that time.
    Entry(f64),
    Over,
}

/// Reads no more of an entry than it must: what the client takes is missing to the server.
fn told(line: &[u8]) -> Result<Told> {
    if !line.starts_with(b"data:") {
        return Ok(Told::Nothing);
    }
    let line = std::str::from_utf8(line)?;
    if line.contains("\"kind\":\"turn.ended\"") {
        return Ok(Told::Over);
    }
    let at = line.split_once("\"at\":").context("an entry's time")?.1;
    let end = at.find([',', '}']).context("the end of the time")?;
    Ok(Told::Entry(at[..end].trim().parse()?))
}

struct Follower {
    stream: TcpStream,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
    over: bool,
}

/// Listens to all streams from one thread until each is over; how long each entry took to each.
fn listen(streams: Vec<TcpStream>, told: fn(&[u8]) -> Result<Told>) -> Result<Vec<f64>> {
    let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut followers = Vec::new();
    for (number, stream) in streams.into_iter().enumerate() {
        stream.set_nonblocking(true)?;
        watch(&poll, &stream, number as u64)?;
        followers.push(Follower {
            stream,
            rest: Vec::new(),
            over: false,
        });
    }
    let mut left = followers.len();
    let mut millis = Vec::new();
    let mut events = Vec::with_capacity(256);
    let mut buffer = vec![0; 64 << 10];
    let patience = rustix::event::Timespec {
        tv_sec: SILENCE.as_secs().cast_signed(),
        tv_nsec: 0,
    };
    while left > 0 {
        events.clear();
        epoll::wait(
            &poll,
            rustix::buffer::spare_capacity(&mut events),
            Some(&patience),
        )?;
        ensure!(
            !events.is_empty(),
            "{left} followers heard nothing for long"
        );
        for event in &events {
            let number = usize::try_from(event.data.u64())?;
            let follower = followers.get_mut(number).context("a follower")?;
            if follower.over {
                continue;
            }
            let count = match follower.stream.read(&mut buffer) {
                Ok(0) => bail!("a stream ended"),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let now = now()?;
            follower.rest.extend_from_slice(&buffer[..count]);
            let whole = follower.rest.iter().rposition(|byte| *byte == b'\n');
            let whole = whole.map_or(0, |at| at + 1);
            for line in follower.rest[..whole].split(|byte| *byte == b'\n') {
                match told(line)? {
                    Told::Nothing => {}
                    Told::Entry(at) => millis.push(now - at),
                    Told::Over => follower.over = true,
                }
            }
            follower.rest.drain(..whole);
            left -= usize::from(follower.over);
        }
    }
    Ok(millis)
}

fn watch(poll: &OwnedFd, stream: &TcpStream, number: u64) -> Result<()> {
    let data = epoll::EventData::new_u64(number);
    Ok(epoll::add(poll, stream, data, epoll::EventFlags::IN)?)
}
