//! Accepts connections and runs one operation on each.

use std::{cell::Cell, io, os::fd::AsFd, rc::Rc, time::Duration};

use tokio::net::{TcpStream, UnixListener, UnixStream};
use woodfrog_guest_proto::{
    Empty, ErrorBody, ErrorCode, Follow, Frame, FrameError, FrameKind, From, Ports, ProcessList,
    Request, StartRequest, Times, encode_json, limits, parse_json,
};

use crate::{
    conn::Conn,
    error::{OpResult, fail, invalid, system},
    files,
    guest::Guest,
    process,
};

/// A connection must say what it is for within this.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed, typically for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What serves connections, and how many there are.
#[derive(Clone)]
pub(crate) struct Server {
    guest: Rc<Guest>,
    open: Rc<Cell<usize>>,
}

impl Server {
    pub(crate) fn new(guest: Rc<Guest>) -> Self {
        Self {
            guest,
            open: Rc::new(Cell::new(0)),
        }
    }

    /// Room for one more connection, if there is.
    pub(crate) fn slot(&self) -> Option<Slot> {
        (self.open.get() < limits::MAX_CONNECTIONS).then(|| Slot::take(&self.open))
    }

    /// Serves one connection whose other end cannot be given descriptors.
    pub(crate) async fn serve_without_descriptors(&self, stream: UnixStream) {
        connection(&self.guest, Conn::without_descriptors(stream)).await;
    }
}

/// Serves for ever.
pub(crate) async fn serve(guest: Rc<Guest>, listener: UnixListener) {
    let server = Server::new(guest);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(slot) = server.slot() else {
            refuse(&stream);
            continue;
        };
        let guest = server.guest.clone();
        tokio::task::spawn_local(async move {
            let _slot = slot;
            connection(&guest, Conn::new(stream)).await;
        });
    }
}

/// Counts a connection while it lives.
pub(crate) struct Slot(Rc<Cell<usize>>);

impl Slot {
    fn take(open: &Rc<Cell<usize>>) -> Self {
        open.set(open.get() + 1);
        Self(open.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

fn refuse(stream: &UnixStream) {
    let body = ErrorBody::new(ErrorCode::Busy, "too many connections");
    if let Ok(frame) = encode_json(FrameKind::Error, &body) {
        // A fresh socket has room for it; if not, the close says enough.
        let _ = stream.try_write(&frame);
    }
}

async fn connection(guest: &Rc<Guest>, mut conn: Conn) {
    let request = match tokio::time::timeout(REQUEST_TIMEOUT, conn.recv()).await {
        Ok(Ok(Some(Frame::Request(payload)))) => parse(&payload),
        Ok(Ok(Some(_))) => Err(invalid("the first frame must be a request")),
        Ok(Ok(None)) | Err(_) => return,
        Ok(Err(e)) => Err(protocol_error(&e)),
    };
    let result = match request {
        Ok(request) => operate(guest, &mut conn, request).await,
        Err(error) => Err(error),
    };
    if let Err(mut error) = result {
        if error.message.len() > limits::MAX_PATH * 2 {
            error.message = error.message.chars().take(limits::MAX_PATH).collect();
        }
        // The host may be gone; there is nobody else to tell.
        let _ = conn.send(FrameKind::Error, &error).await;
    }
}

fn protocol_error(error: &io::Error) -> ErrorBody {
    let inner = error.get_ref().and_then(|e| e.downcast_ref::<FrameError>());
    match inner {
        Some(FrameError::Version(_)) => fail(ErrorCode::Unsupported, error.to_string()),
        Some(FrameError::TooLarge { .. }) => fail(ErrorCode::TooLarge, error.to_string()),
        _ => invalid(error.to_string()),
    }
}

fn parse(payload: &[u8]) -> OpResult<Request> {
    parse_json(payload).map_err(|e| {
        let message = e.to_string();
        if message.contains("unknown variant") {
            fail(ErrorCode::Unsupported, message)
        } else {
            invalid(message)
        }
    })
}

async fn operate(guest: &Rc<Guest>, conn: &mut Conn, request: Request) -> OpResult<()> {
    match request {
        Request::Hello {} => end(conn, &guest.hello()).await,
        Request::Configure(change) => end(conn, &guest.configure(change)?).await,
        Request::Metrics {} => {
            let (metrics, sample) = crate::system::metrics(guest.cpu.get())?;
            guest.cpu.set(Some(sample));
            end(conn, &metrics).await
        }
        Request::Ports {} => {
            end(
                conn,
                &Ports {
                    ports: crate::system::ports(),
                },
            )
            .await
        }
        Request::Shutdown {} => {
            // Answered first: nothing is, once the end has begun.
            let answered = end(conn, &Empty {}).await;
            guest.shutdown.notify_one();
            answered
        }
        Request::Connect { port } => connect(conn, port).await,
        Request::Start(request) => start(guest, conn, request).await,
        Request::Attach {
            process,
            from,
            times,
        } => {
            let process = guest.processes.borrow_mut().find(&process)?;
            process::follow(conn, process, from, times).await
        }
        Request::Forget { process } => {
            guest.processes.borrow_mut().forget(&process)?;
            end(conn, &Empty {}).await
        }
        Request::List {} => list(guest, conn).await,
        Request::Signal {
            process,
            signal,
            target,
        } => {
            let process = guest.processes.borrow_mut().find(&process)?;
            process.signal(signal, target)?;
            end(conn, &Empty {}).await
        }
        Request::Stdin { process, offset } => process::feed(conn, guest, &process, offset).await,
        Request::CloseStdin { process } => {
            process::close_stdin(guest, &process).await?;
            end(conn, &Empty {}).await
        }
        Request::Resize { process, size } => {
            let process = guest.processes.borrow_mut().find(&process)?;
            process.resize(size)?;
            end(conn, &Empty {}).await
        }
        Request::Stat(_)
        | Request::ListDir(_)
        | Request::Mkdir(_)
        | Request::Move(_)
        | Request::Compose(_)
        | Request::Remove(_)
        | Request::Read(_)
        | Request::Write(_)
        | Request::Open(_)
        | Request::Watch(_) => files::operate(guest, conn, request).await,
    }
}

/// The last frame of a success. A host that left before it needs no error.
pub(crate) async fn end<T: serde::Serialize>(conn: &Conn, value: &T) -> OpResult<()> {
    let _ = conn.send(FrameKind::End, value).await;
    Ok(())
}

async fn start(guest: &Rc<Guest>, conn: &Conn, request: StartRequest) -> OpResult<()> {
    let follow = request.follow;
    let process = process::start(guest, request)?;
    match follow {
        Follow::Attach => process::follow(conn, process, From::Offset(0), Times::Untold).await,
        Follow::Detach => {
            let started = process.started();
            if conn.send(FrameKind::Reply, &started).await.is_ok() {
                end(conn, &Empty {}).await?;
            }
            Ok(())
        }
    }
}

/// One process per event: arguments and environments may fill a frame each.
async fn list(guest: &Guest, conn: &Conn) -> OpResult<()> {
    let infos = guest.processes.borrow_mut().infos();
    for mut info in infos {
        if serde_json::to_vec(&info).is_ok_and(|json| json.len() > limits::MAX_CONTROL / 2) {
            info.args.clear();
            info.env.clear();
        }
        let page = ProcessList {
            processes: vec![info],
        };
        if conn.send(FrameKind::Event, &page).await.is_err() {
            return Ok(());
        }
    }
    end(conn, &Empty {}).await
}

/// Connects inside the sandbox and hands the socket over, or becomes the connection.
async fn connect(conn: &mut Conn, port: u16) -> OpResult<()> {
    let attempt = async {
        match TcpStream::connect(("127.0.0.1", port)).await {
            Ok(stream) => Ok(stream),
            Err(first) => TcpStream::connect(("::1", port)).await.map_err(|_| first),
        }
    };
    let mut stream = tokio::select! {
        result = attempt => result.map_err(|e| system(&format!("port {port}"), e))?,
        () = conn.hangup() => return Ok(()),
    };
    if !conn.passes_descriptors() {
        conn.become_stream(&mut stream).await;
        return Ok(());
    }
    if conn
        .send_fd(FrameKind::Reply, &Empty {}, stream.as_fd())
        .await
        .is_ok()
    {
        end(conn, &Empty {}).await?;
    }
    Ok(())
}
