//! The data plane in front of a real guest, without an engine.
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;
use woodfrog_engine::{GuestLease, Reach, SandboxAccess};
use woodfrog_guest_client::{Connect, GuestClient, GuestError, PathConnector};
use woodfrog_server::ServerOptions;
use woodfrog_server::gateway::DataPlane;
use woodfrog_server::serve::{Faces, Listener, serve};
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::{Code, Fault, SandboxId, WorkspaceId};

/// Long enough for a busy machine; reaching it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How long answers under way may take at shutdown.
pub(crate) const DRAIN: Duration = Duration::from_secs(10);
pub(crate) const TOKEN: &str = "0tQG31xiMp0IOQfaz9dcwi72L1CPo8e0";

/// One sandbox that is a guest process of this machine.
pub(crate) struct Plane {
    pub(crate) access: SandboxAccess,
    client: GuestClient,
    pub(crate) ended: CancellationToken,
    /// How often its guest was asked for, which wakes a real one.
    pub(crate) guests: AtomicUsize,
    pub(crate) cut: Arc<Cut>,
}

/// Connections to a guest that can be broken.
pub(crate) struct Cut {
    socket: PathBuf,
    now: Mutex<CancellationToken>,
    refused: AtomicBool,
}

impl Cut {
    fn token(&self) -> CancellationToken {
        self.now.lock().unwrap().clone()
    }

    /// Breaks every connection there is.
    pub(crate) fn cut(&self) {
        let next = CancellationToken::new();
        std::mem::replace(&mut *self.now.lock().unwrap(), next).cancel();
    }

    /// Lets no new one through.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Ordering::SeqCst);
    }
}

/// Only connections for streams go through the pump: descriptors would be lost in it.
struct ThroughCut(Arc<Cut>);

impl Connect for ThroughCut {
    fn connect(&self) -> Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send + '_>> {
        Box::pin(async {
            if self.0.refused.load(Ordering::SeqCst) {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let mut inside = UnixStream::connect(&self.0.socket).await?;
            let (near, mut far) = UnixStream::pair()?;
            let cut = self.0.token();
            tokio::spawn(async move {
                tokio::select! {
                    () = cut.cancelled() => {}
                    _ = tokio::io::copy_bidirectional(&mut far, &mut inside) => {}
                }
            });
            Ok(near)
        })
    }
}

#[async_trait::async_trait]
impl DataPlane for Plane {
    async fn peek(&self, id: &SandboxId) -> Result<SandboxAccess, Fault> {
        if *id == self.access.id && !self.ended.is_cancelled() {
            Ok(self.access.clone())
        } else {
            Err(Fault::sandbox_not_found(id.as_str()))
        }
    }

    async fn access_by_signature(
        &self,
        check: &(dyn for<'a> Fn(&'a SandboxAccess) -> bool + Send + Sync),
    ) -> Option<SandboxAccess> {
        check(&self.access).then(|| self.access.clone())
    }

    async fn guest(&self, _: &SandboxId) -> Result<GuestLease, Fault> {
        self.guests.fetch_add(1, Ordering::SeqCst);
        Ok(GuestLease::new(self.client.clone(), self.ended.clone()))
    }

    async fn port_connect(&self, _: &SandboxId, port: u16) -> Result<TcpStream, Fault> {
        self.client
            .connect(port)
            .await
            .map_err(|error| match error {
                GuestError::Refused(body) => Fault::new(Code::PortNotOpen, body.message),
                other => Fault::internal(other),
            })
    }
}

pub(crate) struct World {
    pub(crate) plane: Arc<Plane>,
    pub(crate) address: SocketAddr,
    pub(crate) dir: TempDir,
    child: Child,
    pub(crate) shutdown: CancellationToken,
    pub(crate) served: tokio::task::JoinHandle<std::io::Result<()>>,
}

#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) network: NetworkSpec,
    pub(crate) traffic_token: Option<String>,
    pub(crate) domain: Option<String>,
    pub(crate) port: u16,
    pub(crate) control: Router,
    pub(crate) reach: Reach,
    /// Whether connections to the guest can be broken; no descriptors come through then.
    pub(crate) breakable: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            network: NetworkSpec::default(),
            traffic_token: None,
            domain: None,
            port: 0,
            control: Router::new().route("/who", get(async || "control")),
            reach: Reach::Awake,
            breakable: false,
        }
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let (dir, socket, child) = spawn_guest();
        let cut = Arc::new(Cut {
            socket: socket.clone(),
            now: Mutex::default(),
            refused: AtomicBool::new(false),
        });
        let connector: Arc<dyn Connect> = match setup.breakable {
            true => Arc::new(ThroughCut(Arc::clone(&cut))),
            false => Arc::new(PathConnector(socket)),
        };
        let client = GuestClient::new(connector);
        let start = Instant::now();
        while client.hello().await.is_err() {
            assert!(start.elapsed() < PATIENCE, "the guest does not answer");
            tokio::task::yield_now().await;
        }
        let access = SandboxAccess {
            id: SandboxId::generate(),
            workspace: WorkspaceId::default_workspace(),
            secure: true,
            access_token: TOKEN.to_owned(),
            traffic_token: setup.traffic_token,
            network: setup.network,
            default_user: "user".to_owned(),
            default_workdir: None,
            reach: setup.reach,
        };
        let plane = Arc::new(Plane {
            access,
            client,
            ended: CancellationToken::new(),
            guests: AtomicUsize::new(0),
            cut,
        });
        let options = Arc::new(ServerOptions {
            domain: setup.domain,
            agent_cors: None,
        });
        let faces = Faces::new(
            Arc::clone(&plane) as Arc<dyn DataPlane>,
            setup.control,
            options,
        );
        let tcp = TcpListener::bind(("127.0.0.1", setup.port)).await.unwrap();
        let address = tcp.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(serve(
            faces,
            vec![Listener { tcp, tls: None }],
            shutdown.clone(),
            DRAIN,
        ));
        Self {
            plane,
            address,
            dir,
            child,
            shutdown,
            served,
        }
    }

    pub(crate) fn id(&self) -> &str {
        self.plane.access.id.as_str()
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// A request to the daemon with its routing headers and token.
    pub(crate) fn envd(&self, method: &str, path: &str) -> http::request::Builder {
        self.to_port(49983, method, path)
            .header("x-access-token", TOKEN)
    }

    pub(crate) fn to_port(&self, port: u16, method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", self.address.to_string())
            .header("e2b-sandbox-id", self.id())
            .header("e2b-sandbox-port", port.to_string())
    }

    /// Sends a request on a new connection.
    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection.with_upgrades());
        let sent = tokio::time::timeout(PATIENCE, sender.send_request(request));
        sent.await.expect("no answer").unwrap()
    }

    pub(crate) async fn fetch(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.send(request).await.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect())
            .await
            .expect("no end");
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.unwrap().to_bytes(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.fetch(self.envd("GET", path).body(Body::empty()).unwrap())
            .await
    }

    /// A unary call.
    pub(crate) async fn call(&self, procedure: &str, message: &str) -> Answer {
        let request = self
            .envd("POST", &format!("/{procedure}"))
            .header("content-type", "application/json")
            .header("connect-protocol-version", "1")
            .header("authorization", "Basic dXNlcjo=")
            .body(Body::from(message.to_owned()))
            .unwrap();
        self.fetch(request).await
    }

    /// A call whose answer streams.
    pub(crate) async fn open(
        &self,
        procedure: &str,
        messages: &[&str],
        headers: &[(&str, &str)],
    ) -> Frames {
        let mut body = Vec::new();
        for message in messages {
            body.push(0);
            body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            body.extend_from_slice(message.as_bytes());
        }
        let mut request = self
            .envd("POST", &format!("/{procedure}"))
            .header("content-type", "application/connect+json")
            .header("authorization", "Basic dXNlcjo=");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.headers()["content-type"],
            "application/connect+json"
        );
        Frames {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    /// Starts `/bin/sh -c` and streams it.
    pub(crate) async fn sh(&self, script: &str, headers: &[(&str, &str)]) -> Frames {
        let message = serde_json::json!({
            "process": {"cmd": "/bin/sh", "args": ["-c", script]}, "stdin": false,
        });
        self.open("process.Process/Start", &[&message.to_string()], headers)
            .await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.cancel();
        end_guest(&mut self.child);
    }
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("not JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// The envelopes of a streaming answer.
pub(crate) struct Frames {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Frames {
    /// The next envelope; `Err` when the connection broke, `Ok(None)` at a proper end.
    pub(crate) async fn next(&mut self) -> Result<Option<(u8, serde_json::Value)>, hyper::Error> {
        let work = async {
            loop {
                if let Some(header) = self.buffer.get(..5) {
                    let length = u32::from_be_bytes(header[1..5].try_into().unwrap()) as usize;
                    if self.buffer.len() >= 5 + length {
                        let flags = header[0];
                        let value = serde_json::from_slice(&self.buffer[5..5 + length]).unwrap();
                        self.buffer.drain(..5 + length);
                        return Ok(Some((flags, value)));
                    }
                }
                match self.body.frame().await {
                    None => {
                        assert!(self.buffer.is_empty(), "half an envelope");
                        return Ok(None);
                    }
                    Some(frame) => self.buffer.extend_from_slice(frame?.data_ref().unwrap()),
                }
            }
        };
        tokio::time::timeout(PATIENCE, work)
            .await
            .expect("nothing comes")
    }

    /// The next message, which must be one.
    pub(crate) async fn message(&mut self) -> serde_json::Value {
        let (flags, value) = self.next().await.unwrap().expect("an envelope");
        assert_eq!(flags, 0, "{value}");
        value
    }

    /// Everything to the end: messages, and the last envelope.
    pub(crate) async fn rest(&mut self) -> (Vec<serde_json::Value>, serde_json::Value) {
        let mut messages = Vec::new();
        loop {
            match self.next().await.unwrap().expect("an end envelope") {
                (0, value) => messages.push(value),
                (2, value) => {
                    assert!(
                        self.next().await.unwrap().is_none(),
                        "something follows the end"
                    );
                    return (messages, value);
                }
                (flags, value) => panic!("flags {flags}: {value}"),
            }
        }
    }
}

/// The decoded output of a kind.
pub(crate) fn output(messages: &[serde_json::Value], kind: &str) -> Vec<u8> {
    use base64::Engine as _;
    let texts = messages
        .iter()
        .filter_map(|message| message["event"]["data"][kind].as_str());
    texts
        .flat_map(|text| {
            base64::engine::general_purpose::STANDARD
                .decode(text)
                .unwrap()
        })
        .collect()
}

fn spawn_guest() -> (TempDir, PathBuf, Child) {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let (home, etc) = (dir.path().join("home"), dir.path().join("etc"));
    std::fs::create_dir(&home).unwrap();
    std::fs::create_dir(&etc).unwrap();
    // The home of `user` must be reachable for `user`.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&home, Some(54321), Some(54322)).unwrap();
    let home = home.display();
    let passwd = format!("root:x:0:0::/root:/bin/sh\nuser:x:54321:54322::{home}:/bin/sh\n");
    std::fs::write(etc.join("passwd"), passwd).unwrap();
    std::fs::write(etc.join("group"), "root:x:0:\nuser:x:54322:\n").unwrap();
    let socket = dir.path().join("run/guest.sock");
    let child = Command::new(guest_binary())
        .arg("--socket")
        .arg(&socket)
        .arg("--etc")
        .arg(&etc)
        .arg("--no-init")
        .spawn()
        .unwrap();
    (dir, socket, child)
}

/// Ends a guest with everything it started: it does that itself when it is asked to end.
pub(crate) fn end_guest(child: &mut Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// Built by cargo beside this test's directory.
fn guest_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WOODFROG_GUEST") {
        return path.into();
    }
    static BUILD: std::sync::Once = std::sync::Once::new();
    BUILD.call_once(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
        let built = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "-p",
                "woodfrog-guest",
                "--bin",
                "woodfrog-guest",
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .unwrap();
        assert!(built.success(), "building the guest failed");
    });
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("woodfrog-guest");
    path
}
