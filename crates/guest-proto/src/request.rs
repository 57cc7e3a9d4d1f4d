//! The first frame of every connection.

use serde::{Deserialize, Serialize};

use crate::{
    ComposeRequest, Configure, From, ListRequest, MkdirRequest, MoveRequest, OpenRequest,
    PathRequest, ProcessRef, PtySize, ReadRequest, SignalTarget, StartRequest, Times, WatchRequest,
    WriteRequest,
};

/// What the connection is for. Each line says what the guest answers when all goes well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// End [`crate::Hello`].
    Hello {},
    /// End [`crate::Configured`].
    Configure(Configure),
    /// End [`crate::Metrics`].
    Metrics {},
    /// End [`crate::Ports`].
    Ports {},
    /// End [`crate::Empty`]; then the guest ends its processes and itself, and with it, as PID 1,
    /// the sandbox.
    Shutdown {},
    /// Reply with a TCP socket attached, End [`crate::Empty`].
    Connect { port: u16 },

    /// Reply [`crate::Started`]; then output as data, [`crate::Gap`] events, End
    /// [`crate::ProcessEnd`]; or End [`crate::Empty`] at once when not following.
    Start(StartRequest),
    /// As start, for a process that exists.
    Attach {
        process: ProcessRef,
        from: From,
        /// Told: [`crate::Moment`] events too.
        #[serde(default)]
        times: Times,
    },
    /// Events [`crate::ProcessList`], End [`crate::Empty`].
    List {},
    /// End [`crate::Empty`].
    Signal {
        process: ProcessRef,
        signal: i32,
        target: SignalTarget,
    },
    /// Drops what is kept of a process that has ended. End [`crate::Empty`]; `busy` while it runs.
    Forget { process: ProcessRef },
    /// Data follows with offsets from 0, then End; answered by End [`crate::StdinPosition`].
    ///
    /// `offset` is the position in the whole input at which the data belongs: bytes the process
    /// already has are skipped. Unset: at the present position.
    Stdin {
        process: ProcessRef,
        offset: Option<u64>,
    },
    /// End [`crate::Empty`]; also when it was closed already.
    CloseStdin { process: ProcessRef },
    /// End [`crate::Empty`].
    Resize { process: ProcessRef, size: PtySize },

    /// End [`crate::EntryReply`].
    Stat(PathRequest),
    /// Events [`crate::ListPage`], End [`crate::ListEnd`].
    ListDir(ListRequest),
    /// End [`crate::EntryReply`]; `already_exists` when it is there.
    Mkdir(MkdirRequest),
    /// End [`crate::EntryReply`] of the new place.
    Move(MoveRequest),
    /// End [`crate::EntryReply`] of the joined file, once the sources are removed.
    Compose(ComposeRequest),
    /// End [`crate::Empty`], also when nothing was there.
    Remove(PathRequest),
    /// Reply [`crate::EntryReply`], data, End [`crate::ReadEnd`].
    Read(ReadRequest),
    /// Data follows with offsets from 0, then End; answered by End [`crate::EntryReply`].
    Write(WriteRequest),
    /// Reply [`crate::EntryReply`] with the descriptor attached, End [`crate::Empty`].
    Open(OpenRequest),
    /// Reply [`crate::Empty`] once armed, events [`crate::WatchPage`], End [`crate::Empty`] when
    /// the directory is gone.
    Watch(WatchRequest),
}
