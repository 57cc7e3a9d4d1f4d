//! A running guest against arbitrary and spoiled frames.
//!
//! The guest of a test acts as root of this machine, so nothing is generated that could do harm if
//! it were obeyed: no programs that exist, no moves or removals, and nothing is written but below
//! the home of its user, whatever is spoiled.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{PATIENCE, TestGuest, eventually};
use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use woodfrog_guest_client::proto::{
    self, Channel, Configure, FrameKind, ListRequest, PathRequest, ProcessRef, PtySize,
    ReadRequest, Request, SignalTarget, StartRequest, Times, VERSION, WatchRequest, WriteMode,
    WriteRequest, data_prefix, encode, encode_json,
};

/// Connections that are made, one after the other.
const CASES: u32 = 64;
const SHRINKS: u32 = 256;

/// A place below the home, or one that no file system takes.
fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("~".to_owned()),
        4 => "[a-z]{1,8}",
        1 => "\\PC{0,20}".prop_map(|text| format!("in/{text}")),
        1 => Just("nul\0inside".to_owned()),
        1 => (256..6000usize).prop_map(|len| "long".repeat(len)),
    ]
}

fn at() -> impl Strategy<Value = PathRequest> {
    let user = prop_oneof![Just("user"), Just("nobody at all"), Just("")];
    (path(), user).prop_map(|(path, user)| PathRequest {
        path,
        user: Some(user.to_owned()),
        ..PathRequest::default()
    })
}

fn process() -> impl Strategy<Value = ProcessRef> {
    prop_oneof![
        any::<u64>().prop_map(ProcessRef::Id),
        any::<u32>().prop_map(ProcessRef::Pid),
        any::<String>().prop_map(ProcessRef::Tag),
    ]
}

fn about_files() -> impl Strategy<Value = Request> {
    prop_oneof![
        at().prop_map(Request::Stat),
        (at(), 0..4u32).prop_map(|(at, depth)| Request::ListDir(ListRequest {
            at,
            depth,
            max_entries: Some(100),
        })),
        (at(), any::<u64>(), any::<Option<u64>>())
            .prop_map(|(at, offset, length)| { Request::Read(ReadRequest { at, offset, length }) }),
        at().prop_map(|at| Request::Watch(WatchRequest {
            at,
            ..WatchRequest::default()
        })),
    ]
}

fn about_processes() -> impl Strategy<Value = Request> {
    let size = any::<(u16, u16)>().prop_map(|(cols, rows)| PtySize { cols, rows });
    prop_oneof![
        (process(), any::<u64>()).prop_map(|(process, offset)| Request::Attach {
            process,
            from: proto::From::Offset(offset),
            times: Times::Untold,
        }),
        (process(), any::<i32>()).prop_map(|(process, signal)| Request::Signal {
            process,
            signal,
            target: SignalTarget::Group,
        }),
        (process(), any::<Option<u64>>())
            .prop_map(|(process, offset)| Request::Stdin { process, offset }),
        process().prop_map(|process| Request::CloseStdin { process }),
        process().prop_map(|process| Request::Forget { process }),
        (process(), size).prop_map(|(process, size)| Request::Resize { process, size }),
        (any::<String>(), any::<Vec<String>>(), any::<Option<u64>>()).prop_map(
            |(name, args, timeout_ms)| {
                Request::Start(StartRequest {
                    cmd: format!("/nonexistent/{name}"),
                    args,
                    timeout_ms,
                    ..StartRequest::default()
                })
            }
        ),
    ]
}

fn about_itself() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(Request::Hello {}),
        Just(Request::Metrics {}),
        Just(Request::Ports {}),
        Just(Request::List {}),
        any::<Option<String>>().prop_map(|default_workdir| {
            Request::Configure(Configure {
                default_workdir,
                ..Configure::default()
            })
        }),
    ]
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![about_files(), about_processes(), about_itself()]
        .prop_map(|request| encode_json(FrameKind::Request, &request).unwrap())
}

/// A file that is written, with more or less honest offsets.
fn upload() -> impl Strategy<Value = Vec<u8>> {
    let atomic = prop_oneof![Just(WriteMode::Truncate), Just(WriteMode::Atomic)];
    let offset = prop_oneof![3 => Just(0), 1 => any::<u32>().prop_map(u64::from)];
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    (atomic, offset, bytes).prop_map(|(replace, offset, bytes)| {
        let at = PathRequest {
            path: "uploaded".to_owned(),
            user: Some("user".to_owned()),
            ..PathRequest::default()
        };
        let request = WriteRequest {
            at,
            replace,
            ..WriteRequest::default()
        };
        let mut wire = encode_json(FrameKind::Request, &Request::Write(request)).unwrap();
        wire.extend(data_prefix(Channel::Plain, offset, bytes.len()));
        wire.extend(bytes);
        wire.extend(encode(FrameKind::End, b"{}").unwrap());
        wire
    })
}

/// A frame of any kind and length around anything, and bytes that are no frame.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..600);
    let framed = |(kind, len, bytes): (u8, Option<u32>, Vec<u8>)| {
        let len = len.unwrap_or(bytes.len() as u32).to_be_bytes();
        [&[VERSION, kind][..], &len, &bytes].concat()
    };
    prop_oneof![
        bytes(),
        (0..8u8, any::<Option<u32>>(), bytes()).prop_map(framed),
    ]
}

/// How a message is spoiled.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
}

impl Change {
    fn make(&self, wire: &mut Vec<u8>) {
        if wire.is_empty() {
            return;
        }
        match self {
            Self::Set(at, byte) => {
                let at = at.index(wire.len());
                wire[at] = *byte;
            }
            Self::Insert(at, byte) => wire.insert(at.index(wire.len()), *byte),
            Self::Remove(at) => drop(wire.remove(at.index(wire.len()))),
            Self::Cut(at) => wire.truncate(at.index(wire.len())),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    // No slash: relative paths stay relative.
    let byte = || any::<u8>().prop_map(|byte| if byte == b'/' { b'.' } else { byte });
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), byte()).prop_map(|(at, byte)| Change::Set(at, byte)),
        2 => (at(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => at().prop_map(Change::Remove),
        1 => at().prop_map(Change::Cut),
    ]
}

/// What one connection sends.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![4 => request(), 2 => upload(), 1 => noise()];
    let pieces = prop::collection::vec(piece, 1..4);
    (pieces, prop::collection::vec(change(), 0..4)).prop_map(|(pieces, changes)| {
        let mut wire = pieces.concat();
        changes.iter().for_each(|change| change.make(&mut wire));
        wire
    })
}

/// Sends all of it and nothing more; whether the guest closes the connection in time.
async fn closes(guest: &TestGuest, wire: &[u8]) -> bool {
    let connected = tokio::net::UnixStream::connect(&guest.socket).await;
    let (mut reader, mut writer) = connected.unwrap().into_split();
    let send = async {
        // The guest may close before it has read everything.
        let _ = writer.write_all(wire).await;
        let _ = writer.shutdown().await;
    };
    let receive = async {
        let mut buffer = vec![0; 64 << 10];
        while reader.read(&mut buffer).await.is_ok_and(|n| n > 0) {}
    };
    let both = async { tokio::join!(send, receive) };
    tokio::time::timeout(PATIENCE, both).await.is_ok()
}

/// Descriptors that the guest has; `None` where this test may not look.
fn descriptors(guest: &TestGuest) -> Option<usize> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", guest.child.id()));
    Some(entries.ok()?.count())
}

#[test]
fn nothing_that_is_sent_ends_it() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let guest = runtime.block_on(TestGuest::start());
    let boot = runtime.block_on(guest.client.hello()).unwrap().boot_id;
    let before = descriptors(&guest);
    let config = Config {
        cases: CASES,
        max_shrink_iters: SHRINKS,
        failure_persistence: None,
        ..Config::default()
    };
    let tried = TestRunner::new(config).run(&message(), |wire| {
        runtime.block_on(async {
            prop_assert!(closes(&guest, &wire).await, "it neither ends nor closes");
            let answer = guest.client.hello().await;
            let now = answer.map_err(|e| TestCaseError::fail(e.to_string()))?;
            prop_assert_eq!(&now.boot_id, &boot);
            Ok(())
        })
    });
    tried.unwrap_or_else(|failure| panic!("{failure}"));
    runtime.block_on(eventually("it lets go of what it had open", async || {
        descriptors(&guest) <= before
    }));
}
