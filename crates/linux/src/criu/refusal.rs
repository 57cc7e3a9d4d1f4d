//! Why a sandbox could not be checkpointed, read from CRIU's log.

use std::fmt;

/// What in a sandbox keeps it from being checkpointed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// A process is traced, by a debugger or `strace`.
    Traced,
    /// A connection to a unix socket carries data and has not been accepted yet.
    UnixInFlight,
    /// A unix socket is connected to a process outside.
    UnixToOutside,
    /// A TCP connection has not been accepted yet.
    TcpInFlight,
    /// `io_uring` is in use.
    IoUring,
    /// `userfaultfd` is in use.
    Userfaultfd,
    /// A process has made a user namespace of its own.
    NestedUserNamespace,
    /// A process has made other namespaces of its own.
    NestedNamespace,
    /// A process holds `/dev/tty` open, and the other end of its terminal is another's.
    ControllingTerminal,
    /// A socket of a family that cannot be kept, as vsock.
    SocketFamily,
    /// A POSIX message queue is open.
    MessageQueue,
    /// A file of a kind that cannot be kept, as those of Landlock or of secret memory.
    FileKind,
    /// A device of the machine is open or mapped.
    Device,
    /// A deleted file that is still open is too big.
    DeletedFile,
    /// A process changed while it was looked at: it ended, or it made another.
    Changing,
    /// The processes could not be stopped in time.
    NotStopped,
    /// The disk is full.
    NoSpace,
    /// The processes use an instruction set in another mode (32 bit).
    ForeignAbi,
}

/// Words of one line of the log, most telling first: a failure at one place leads to complaints at
/// others.
const SIGNS: &[(&str, Refusal)] = &[
    (
        "Unable to interrupt task…Operation not permitted",
        Refusal::Traced,
    ),
    ("Unseizable non-zombie", Refusal::Traced),
    ("queue on an in-flight socket", Refusal::UnixInFlight),
    ("closed in-flight socket", Refusal::UnixInFlight),
    (
        "unix: In-flight connection on non-listening",
        Refusal::UnixInFlight,
    ),
    ("inet: In-flight connection", Refusal::TcpInFlight),
    ("unix: External socket is used", Refusal::UnixToOutside),
    (
        "unix: Can't dump half of stream unix",
        Refusal::UnixToOutside,
    ),
    ("name-less external socket", Refusal::UnixToOutside),
    ("unix: Unix socket", Refusal::UnixToOutside),
    ("[io_uring]", Refusal::IoUring),
    ("[userfaultfd]", Refusal::Userfaultfd),
    (
        "Can't dump nested user namespace",
        Refusal::NestedUserNamespace,
    ),
    ("Can't dump nested", Refusal::NestedNamespace),
    ("Nested mount namespaces", Refusal::NestedNamespace),
    ("ctty inheritance detected", Refusal::ControllingTerminal),
    ("Unknown socket", Refusal::SocketFamily),
    (
        "Only stream, dgram and raw are supported",
        Refusal::SocketFamily,
    ),
    ("Can't dump ghost file", Refusal::DeletedFile),
    ("No space left on device", Refusal::NoSpace),
    ("Disk quota exceeded", Refusal::NoSpace),
    ("running in 32-bit mode", Refusal::ForeignAbi),
    ("Timeout reached", Refusal::NotStopped),
    ("of that type [20", Refusal::Device),
    ("of that type [", Refusal::FileKind),
    ("Unknown shit", Refusal::FileKind),
    ("Can't lookup mount", Refusal::MessageQueue),
    ("send_fds failed (-22)", Refusal::IoUring),
    ("No such process", Refusal::Changing),
];

fn sign_in(log: &str) -> Option<(&str, Refusal)> {
    SIGNS.iter().find_map(|(words, refusal)| {
        let has_all = |line: &&str| words.split('…').all(|word| line.contains(word));
        log.lines().find(has_all).map(|line| (line, *refusal))
    })
}

impl Refusal {
    /// The reason that a log gives, if it is a known one.
    pub fn of_log(log: &str) -> Option<Self> {
        sign_in(log).map(|(_, refusal)| refusal)
    }

    /// The line of the log that names the reason.
    pub(super) fn line_of(log: &str) -> Option<&str> {
        sign_in(log).map(|(line, _)| line)
    }

    /// Whether it passes by itself, so that trying again soon is worth it.
    pub fn transient(self) -> bool {
        match self {
            Self::UnixInFlight | Self::TcpInFlight | Self::Changing | Self::NotStopped => true,
            // Who is outside is the host, which asks the guest something now and then.
            Self::UnixToOutside => true,
            Self::Traced
            | Self::IoUring
            | Self::Userfaultfd
            | Self::NestedUserNamespace
            | Self::NestedNamespace
            | Self::ControllingTerminal
            | Self::SocketFamily
            | Self::MessageQueue
            | Self::FileKind
            | Self::Device
            | Self::DeletedFile
            | Self::NoSpace
            | Self::ForeignAbi => false,
        }
    }
}

/// A sentence for people.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Traced => "a process is being traced (by a debugger or strace); end that first",
            Self::UnixInFlight => {
                "a connection to a unix socket waits to be accepted; this passes by itself"
            }
            Self::UnixToOutside => "a unix socket is connected to a process outside the sandbox",
            Self::TcpInFlight => "a TCP connection waits to be accepted; this passes by itself",
            Self::IoUring => "a process uses io_uring, whose state the kernel does not give out",
            Self::Userfaultfd => {
                "a process uses userfaultfd, whose state the kernel does not give out"
            }
            Self::NestedUserNamespace => {
                "a process has made a user namespace of its own (a browser's sandbox, a nested \
                 container); run it without"
            }
            Self::NestedNamespace => "a process has made namespaces of its own; run it without",
            Self::ControllingTerminal => {
                "a process holds /dev/tty open whose terminal belongs to another process"
            }
            Self::SocketFamily => "a socket is open of a family that cannot be kept (as vsock)",
            Self::MessageQueue => "a POSIX message queue is open, which cannot be kept",
            Self::FileKind => {
                "a file is open of a kind that cannot be kept (as Landlock's, or secret memory)"
            }
            Self::Device => "a device of the machine is in use, whose state cannot be kept",
            Self::DeletedFile => "a deleted file of more than 1 GiB is still open",
            Self::Changing => "a process came or went meanwhile; this passes by itself",
            Self::NotStopped => "the processes could not be stopped in time; try again",
            Self::NoSpace => "there is no room for its memory on the disk",
            Self::ForeignAbi => "a process runs in 32-bit mode, which cannot be kept",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_name_their_reason() {
        let cases = [
            (
                "(00.004) Error (compel/src/lib/infect.c:418): Unseizable non-zombie 17 found, state S, err -1/10",
                Some(Refusal::Traced),
            ),
            (
                "Error (criu/sk-unix.c:740): sk unix: Non-empty write queue on an in-flight socket 91\nError: Can't dump file 3 of that type",
                Some(Refusal::UnixInFlight),
            ),
            (
                "Error (criu/namespaces.c:1): Can't dump nested user namespace for 8",
                Some(Refusal::NestedUserNamespace),
            ),
            (
                "Error (criu/tty.c): tty: ctty inheritance detected sid/pgrp 4",
                Some(Refusal::ControllingTerminal),
            ),
            (
                "Error (criu/files.c): Can't dump file 5 of that type [600] (unknown /anon_inode:[userfaultfd])",
                Some(Refusal::Userfaultfd),
            ),
            ("Error: something new", None),
            ("", None),
        ];
        for (log, expected) in cases {
            assert_eq!(Refusal::of_log(log), expected, "{log}");
        }
        assert!(Refusal::UnixInFlight.transient());
        assert!(!Refusal::Traced.transient());
    }
}
