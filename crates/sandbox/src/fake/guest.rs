//! The guest of a fake sandbox: speaks the guest protocol, answers from a script.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use woodfrog_guest_proto::{
    Channel, Configured, Decoder, Empty, ErrorBody, ErrorCode, Exit, Follow, Frame, FrameKind,
    Hello, ProcessEnd, Request, Started, data_prefix, encode_json, parse_json,
};
use woodfrog_types::SandboxId;

/// How a scripted command ends.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub stdout: String,
    pub code: i32,
}

/// Something that a guest was asked.
#[derive(Debug, Clone)]
pub struct Heard {
    pub sandbox: SandboxId,
    pub request: Request,
}

#[derive(Default)]
struct Inside {
    mute: bool,
    outcomes: BTreeMap<String, Vec<Outcome>>,
    heard: Vec<Heard>,
}

/// What the guests of a driver do. By default every command succeeds silently.
#[derive(Default)]
pub struct GuestScript {
    inside: Mutex<Inside>,
}

impl GuestScript {
    /// Guests accept connections but never answer, or answer again.
    pub fn set_mute(&self, mute: bool) {
        self.lock().mute = mute;
    }

    /// Commands whose text contains `part` end like this: one outcome per run, the last one for
    /// all later runs.
    pub fn on_command(&self, part: &str, outcomes: impl IntoIterator<Item = Outcome>) {
        let mut outcomes: Vec<_> = outcomes.into_iter().collect();
        outcomes.reverse();
        self.lock().outcomes.insert(part.to_owned(), outcomes);
    }

    /// What was asked so far, in order.
    pub fn heard(&self) -> Vec<Heard> {
        self.lock().heard.clone()
    }

    /// The command lines that were started so far, in order.
    pub fn commands(&self) -> Vec<String> {
        let line = |heard: &Heard| match &heard.request {
            Request::Start(start) => start.args.last().cloned(),
            _ => None,
        };
        self.lock().heard.iter().filter_map(line).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self, line: &str) -> Outcome {
        let mut inside = self.lock();
        let scripted = inside
            .outcomes
            .iter_mut()
            .find(|(part, _)| line.contains(part.as_str()));
        let next = scripted.and_then(|(_, left)| {
            if left.len() > 1 {
                left.pop()
            } else {
                left.last().cloned()
            }
        });
        next.unwrap_or(Outcome {
            stdout: String::new(),
            code: 0,
        })
    }
}

/// A machine, as one connection to its guest sees it.
pub(super) struct View {
    pub(super) sandbox: SandboxId,
    pub(super) boot: String,
    pub(super) exited: watch::Sender<Option<String>>,
    pub(super) paused: watch::Receiver<bool>,
    pub(super) cuts: watch::Receiver<u64>,
}

/// Serves one connection, until a checkpoint cuts it.
pub(super) async fn serve(script: Arc<GuestScript>, view: View, mut stream: UnixStream) {
    let mut cuts = view.cuts.clone();
    let cut = async {
        // A machine that is gone cuts nothing any more.
        if cuts.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // A connection that breaks concerns the other side only.
        _ = answer(&script, view, &mut stream) => {}
        () = cut => {}
    }
}

type Answer = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn answer(script: &GuestScript, mut view: View, stream: &mut UnixStream) -> Answer {
    if view.paused.wait_for(|paused| !paused).await.is_err() {
        // Frozen until its end.
        return Ok(());
    }
    let View {
        sandbox,
        boot,
        exited,
        ..
    } = view;
    let Some(request) = read_request(stream).await? else {
        return Ok(());
    };
    let mute = {
        let mut inside = script.lock();
        let (request, sandbox) = (request.clone(), sandbox.clone());
        inside.heard.push(Heard { sandbox, request });
        inside.mute
    };
    if mute {
        // Until the other side gives up.
        stream.read_u8().await?;
        return Ok(());
    }
    match request {
        Request::Hello {} => {
            let hello = Hello {
                version: "fake".to_owned(),
                protocol: 1,
                boot_id: boot,
                uptime_ms: 1,
                pid: 1,
            };
            send(stream, FrameKind::End, &hello).await
        }
        Request::Configure(configure) => {
            let configured = Configured {
                default_user: configure.default_user.unwrap_or_default(),
                default_workdir: configure.default_workdir,
                env: configure.env.unwrap_or_default(),
            };
            send(stream, FrameKind::End, &configured).await
        }
        Request::Start(start) => {
            let line = start.args.last().cloned().unwrap_or_default();
            let outcome = script.outcome(&line);
            let started = Started {
                id: 1,
                pid: 2,
                offset: 0,
            };
            send(stream, FrameKind::Reply, &started).await?;
            if start.follow == Follow::Detach {
                return send(stream, FrameKind::End, &Empty {}).await;
            }
            finish(stream, &outcome).await
        }
        Request::Shutdown {} => {
            exited.send_replace(Some("terminated".to_owned()));
            send(stream, FrameKind::End, &Empty {}).await
        }
        Request::Connect { port } => connect(stream, port).await,
        _ => refuse(stream, ErrorCode::Unsupported, "not in this guest's script").await,
    }
}

async fn read_request(
    stream: &mut UnixStream,
) -> Result<Option<Request>, Box<dyn std::error::Error + Send + Sync>> {
    let mut decoder = Decoder::new();
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return match frame {
                Frame::Request(payload) => Ok(Some(parse_json(&payload)?)),
                _ => Ok(None),
            };
        }
        if stream.read_buf(decoder.buffer()).await? == 0 {
            return Ok(None);
        }
    }
}

async fn send<T: Serialize>(stream: &mut UnixStream, kind: FrameKind, value: &T) -> Answer {
    stream.write_all(&encode_json(kind, value)?).await?;
    Ok(())
}

async fn refuse(stream: &mut UnixStream, code: ErrorCode, message: &str) -> Answer {
    send(stream, FrameKind::Error, &ErrorBody::new(code, message)).await
}

async fn finish(stream: &mut UnixStream, outcome: &Outcome) -> Answer {
    let bytes = outcome.stdout.as_bytes();
    if !bytes.is_empty() {
        let prefix = data_prefix(Channel::Stdout, 0, bytes.len());
        stream.write_all(&prefix).await?;
        stream.write_all(bytes).await?;
    }
    let exit = Exit::Exited { code: outcome.code };
    let end = ProcessEnd {
        exit,
        status: exit.status(),
        timed_out: false,
        offset: bytes.len() as u64,
    };
    send(stream, FrameKind::End, &end).await
}

/// Ports of a fake sandbox are those of the host's loopback.
async fn connect(stream: &mut UnixStream, port: u16) -> Answer {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
    use std::os::fd::AsFd as _;

    let Ok(socket) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await else {
        return refuse(stream, ErrorCode::ConnectionRefused, "connection refused").await;
    };
    let frame = encode_json(FrameKind::Reply, &Empty {})?;
    let fds = [socket.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let parts = [std::io::IoSlice::new(&frame)];
    // A frame this small fits the socket's buffer: nothing was sent before it.
    sendmsg(&*stream, &parts, &mut control, SendFlags::empty())?;
    Ok(())
}
