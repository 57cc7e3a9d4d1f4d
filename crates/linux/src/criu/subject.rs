//! What the self-test checkpoints: an init that holds a counter, a TCP listener, a
//! pseudo-terminal, a watch on a file and a TCP connection to itself with data under way, and uses
//! all of them each time it is asked.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Where it listens.
pub const PORT: u16 = 4711;
const WATCHED: &str = "/watched";
/// One file by both its names.
const KEPT: [&str; 2] = ["/dev/shm/kept", "/run/shm/kept"];

/// The init of the self-test: a process of its own. Ends only by failing. A number as its second
/// argument is the memory it holds, in bytes.
pub fn subject_main() -> ! {
    let bytes = std::env::args().nth(2).and_then(|text| text.parse().ok());
    let held = vec![1u8; bytes.unwrap_or(0)];
    let code = match std::hint::black_box(serve(&held)) {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(1),
    };
    std::process::exit(code)
}

fn serve(held: &[u8]) -> io::Result<()> {
    let (mut terminal, mut side) = terminal()?;
    let watch = watch()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    let mut wire = Wire::new()?;
    fs::write(KEPT[0], "kept")?;
    let mut count = 0u64;
    loop {
        let (mut client, _) = listener.accept()?;
        let carried = wire.carried(count);
        count += 1;
        wire.send(count);
        let said = format!("{count}\n");
        side.write_all(said.as_bytes())?;
        let heard = line(&mut terminal)?;
        fs::write(WATCHED, &said)?;
        let seen = rustix::io::read(&watch, &mut [0u8; 4096][..])?;
        // Every page of it, as it was, and the file in memory.
        let whole = held.iter().step_by(4096).all(|byte| *byte == 1);
        let whole = whole && fs::read(KEPT[1])? == b"kept";
        writeln!(client, "{count} {heard} {} {}", seen > 0, carried && whole)?;
    }
}

/// The next line without its end. A terminal may give it in pieces: the end is two characters.
fn line(terminal: &mut File) -> io::Result<String> {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\n") {
        let mut piece = [0; 32];
        let len = terminal.read(&mut piece)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        heard.extend_from_slice(&piece[..len]);
    }
    Ok(String::from_utf8_lossy(&heard).trim().to_owned())
}

/// A TCP connection to ourselves. Its data waits in the kernel from one request to the next.
struct Wire {
    near: TcpStream,
    far: TcpStream,
}

impl Wire {
    fn new() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let (far, _) = listener.accept()?;
        far.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut wire = Self { near, far };
        wire.send(0);
        Ok(wire)
    }

    fn send(&mut self, count: u64) {
        // If it is cut, that shows at the other end.
        let _ = self.near.write_all(&count.to_be_bytes());
    }

    /// Whether what was sent has come.
    fn carried(&mut self, count: u64) -> bool {
        let mut bytes = [0; 8];
        self.far.read_exact(&mut bytes).is_ok() && u64::from_be_bytes(bytes) == count
    }
}

/// Both sides of a new pseudo-terminal, which controls no session.
fn terminal() -> io::Result<(File, File)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let side = rustix::fs::open(name, flags, Mode::empty())?;
    Ok((master.into(), side.into()))
}

fn watch() -> io::Result<OwnedFd> {
    fs::write(WATCHED, "")?;
    let watch = inotify::init(CreateFlags::CLOEXEC)?;
    inotify::add_watch(&watch, WATCHED, WatchFlags::CLOSE_WRITE)?;
    Ok(watch)
}
