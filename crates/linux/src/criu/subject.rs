//! What the self-test checkpoints: an init that holds a counter, a TCP listener, a
//! pseudo-terminal and a watch on a file, and uses all of them each time it is asked.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Where it listens.
pub(super) const PORT: u16 = 4711;
const WATCHED: &str = "/watched";

/// The init of the self-test: a process of its own. Ends only by failing.
pub fn subject_main() -> ! {
    let code = match serve() {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().unwrap_or(1),
    };
    std::process::exit(code)
}

fn serve() -> io::Result<()> {
    let (mut terminal, mut side) = terminal()?;
    let watch = watch()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    let mut count = 0u64;
    loop {
        let (mut client, _) = listener.accept()?;
        count += 1;
        let said = format!("{count}\n");
        side.write_all(said.as_bytes())?;
        let mut heard = [0; 32];
        let len = terminal.read(&mut heard)?;
        let heard = String::from_utf8_lossy(&heard[..len]).trim().to_owned();
        fs::write(WATCHED, &said)?;
        let seen = rustix::io::read(&watch, &mut [0u8; 4096][..])?;
        writeln!(client, "{count} {heard} {}", seen > 0)?;
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
