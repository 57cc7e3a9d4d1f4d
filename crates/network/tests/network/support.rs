//! A world of network namespaces: `host` (where the code under test runs), `inet` (a fake
//! internet behind it) and sandboxes. Nothing is connected to the machine's own network.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use woodfrog_network::{
    Attachment, Authority, EgressPolicy, Network, NetworkConfig, NetworkMode, choose_subnet,
};

pub(crate) const INTERNET: [&str; 4] = [
    "203.0.113.10",
    "203.0.113.20",
    "198.51.100.10",
    "10.77.0.10",
];
pub(crate) const DNS_SERVER: &str = "203.0.113.53";
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Removed with everything in it when dropped.
pub(crate) struct World {
    pub(crate) tag: String,
    namespaces: Vec<String>,
    pub(crate) instance: String,
    /// For the authority.
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let instance = format!("{:06x}", (pid << 4 | n) & 0xff_ffff);
        let mut world = Self {
            tag: format!("wft{pid}x{n}"),
            namespaces: Vec::new(),
            instance,
            folder: tempfile::tempdir().unwrap(),
        };
        let (host, inet) = (world.add("host"), world.add("inet"));
        run(&[
            "ip", "-n", &host, "link", "add", "up0", "type", "veth", "peer", "name", "up1",
            "netns", &inet,
        ]);
        run(&[
            "ip",
            "-n",
            &host,
            "addr",
            "add",
            "192.0.2.2/24",
            "dev",
            "up0",
        ]);
        run(&["ip", "-n", &host, "link", "set", "up0", "up"]);
        run(&[
            "ip",
            "-n",
            &inet,
            "addr",
            "add",
            "192.0.2.1/24",
            "dev",
            "up1",
        ]);
        run(&["ip", "-n", &inet, "link", "set", "up1", "up"]);
        run(&[
            "ip",
            "-n",
            &host,
            "route",
            "add",
            "default",
            "via",
            "192.0.2.1",
        ]);
        for ip in INTERNET.iter().chain([&DNS_SERVER, &"169.254.169.254"]) {
            run(&[
                "ip",
                "-n",
                &inet,
                "addr",
                "add",
                &format!("{ip}/32"),
                "dev",
                "lo",
            ]);
        }
        // The kernel says so a little after both ends are up.
        let began = Instant::now();
        let state = || run(&["ip", "-n", &host, "-br", "link", "show", "up0"]);
        while state().split_whitespace().nth(1) != Some("UP") {
            assert!(
                began.elapsed() < PATIENCE,
                "the uplink is down: {}",
                state()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        world
    }

    /// A handle on the host namespace.
    pub(crate) fn host(&self) -> Host {
        Host(self.netns("host"))
    }

    /// A new namespace with `lo` up.
    pub(crate) fn add(&mut self, name: &str) -> String {
        let full = format!("{}-{name}", self.tag);
        run(&["ip", "netns", "add", &full]);
        self.namespaces.push(full.clone());
        run(&["ip", "-n", &full, "link", "set", "lo", "up"]);
        full
    }

    pub(crate) fn config(&self) -> NetworkConfig {
        NetworkConfig {
            instance: self.instance.clone(),
            subnet: self.run_in("host", || choose_subnet().unwrap().unwrap()),
            deny: woodfrog_network::default_denied(),
            allow: Vec::new(),
            proxies: Vec::new(),
            authority: Arc::new(Authority::open(self.folder.path()).unwrap()),
            extra_roots: Vec::new(),
            uplinks: Vec::new(),
            dns_upstreams: Some(vec![format!("{DNS_SERVER}:53").parse().unwrap()]),
            nft: None,
        }
    }

    pub(crate) fn netns(&self, name: &str) -> OwnedFd {
        File::open(format!("/run/netns/{}-{name}", self.tag))
            .unwrap()
            .into()
    }

    /// Runs something on a thread inside a namespace.
    pub(crate) fn run_in<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        let netns = self.netns(name);
        std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    enter(&netns);
                    work()
                })
                .join()
                .unwrap()
        })
    }

    /// A listener in a namespace.
    pub(crate) fn listen(&self, name: &str, address: &str) -> TcpListener {
        let netns = self.netns(name);
        let address: SocketAddr = address.parse().unwrap();
        let listener = std::thread::spawn(move || {
            enter(&netns);
            TcpListener::bind(address).unwrap()
        });
        listener.join().unwrap()
    }

    /// A TCP server that says which address and port it was reached at, then echoes.
    pub(crate) fn tcp_server(&self, name: &str, address: &str) {
        let listener = self.listen(name, address);
        let address: SocketAddr = address.parse().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                std::thread::spawn(move || {
                    let peer = stream.peer_addr().unwrap().ip();
                    let _ = writeln!(stream, "{address} from {peer}");
                    let mut buffer = [0; 4096];
                    while let Ok(len @ 1..) = stream.read(&mut buffer) {
                        if stream.write_all(&buffer[..len]).is_err() {
                            return;
                        }
                    }
                });
            }
        });
    }

    /// A UDP server that answers with its own address.
    pub(crate) fn udp_server(&self, name: &str, address: &str) {
        let netns = self.netns(name);
        let address: SocketAddr = address.parse().unwrap();
        let socket = std::thread::spawn(move || {
            enter(&netns);
            UdpSocket::bind(address).unwrap()
        });
        let socket = socket.join().unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(address.to_string().as_bytes(), peer);
            }
        });
    }

    /// A DNS server that knows `zone` and answers everything else with NXDOMAIN.
    pub(crate) fn dns_server(&self, zone: &[(&str, [u8; 4])]) {
        let zone: Vec<_> = zone.iter().map(|(n, ip)| ((*n).to_owned(), *ip)).collect();
        let netns = self.netns("inet");
        let bind = || {
            (
                UdpSocket::bind((DNS_SERVER, 53)).unwrap(),
                TcpListener::bind((DNS_SERVER, 53)).unwrap(),
            )
        };
        let (udp, tcp) = std::thread::spawn(move || {
            enter(&netns);
            bind()
        })
        .join()
        .unwrap();
        let tcp_zone = zone.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((len, peer)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&dns_answer(&zone, &buffer[..len]), peer);
            }
        });
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut len = [0; 2];
                if stream.read_exact(&mut len).is_err() {
                    continue;
                }
                let mut query = vec![0; usize::from(u16::from_be_bytes(len))];
                if stream.read_exact(&mut query).is_err() {
                    continue;
                }
                let answer = dns_answer(&tcp_zone, &query);
                let _ = stream.write_all(&(answer.len() as u16).to_be_bytes());
                let _ = stream.write_all(&answer);
            }
        });
    }

    /// A sandbox: its namespace, attached.
    pub(crate) async fn attach(
        &mut self,
        network: &Network,
        slot: u32,
        policy: EgressPolicy,
    ) -> Attachment {
        let name = format!("sb{slot}");
        self.add(&name);
        let netns = self.netns(&name);
        let attached = network
            .attach(&name, slot, netns, NetworkMode::Nat, policy)
            .await;
        attached.unwrap().unwrap()
    }
}

/// The namespace that plays the host.
pub(crate) struct Host(OwnedFd);

impl Host {
    /// Runs a test body in the host namespace.
    pub(crate) fn block_on<T: Send>(&self, body: impl AsyncFnOnce() -> T + Send) -> T {
        let work = || {
            enter(&self.0);
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            runtime.enable_all().build().unwrap().block_on(body())
        };
        std::thread::scope(|scope| scope.spawn(work).join().unwrap())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in self.namespaces.iter().rev() {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Runs something blocking in a namespace, away from the runtime that serves sandboxes.
pub(crate) async fn inside<T: Send + 'static>(
    netns: OwnedFd,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let apart = move || {
        let thread = std::thread::spawn(move || {
            enter(&netns);
            work()
        });
        thread.join().unwrap()
    };
    tokio::task::spawn_blocking(apart).await.unwrap()
}

pub(crate) fn enter(netns: &OwnedFd) {
    move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

pub(crate) fn run(args: &[&str]) -> String {
    let output = Command::new(args[0]).args(&args[1..]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// Connects and reads the greeting. Errors are the kernel's.
pub(crate) fn tcp(address: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    read_line(&mut stream)
}

pub(crate) fn read_line(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// Asks and reads the answer.
pub(crate) fn udp(address: &str) -> std::io::Result<String> {
    udp_within(address, PATIENCE)
}

pub(crate) fn udp_within(address: &str, patience: Duration) -> std::io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"hello")?;
    let mut buffer = [0; 512];
    let len = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..len]).into_owned())
}

/// Response code and first address, over UDP or TCP.
pub(crate) fn lookup(name: &str, over_tcp: bool) -> std::io::Result<(u8, Option<IpAddr>)> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let mut answer = vec![0; 512];
    if over_tcp {
        let mut stream = TcpStream::connect_timeout(&"169.254.0.53:53".parse().unwrap(), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&(query.len() as u16).to_be_bytes())?;
        stream.write_all(&query)?;
        let mut len = [0; 2];
        stream.read_exact(&mut len)?;
        answer.resize(usize::from(u16::from_be_bytes(len)), 0);
        stream.read_exact(&mut answer)?;
    } else {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("169.254.0.53:53")?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.send(&query)?;
        let len = socket.recv(&mut answer)?;
        answer.truncate(len);
    }
    assert_eq!(answer[..2], [0x12, 0x34]);
    let ip = answer
        .get(query.len() + 12..query.len() + 16)
        .map(|b| <[u8; 4]>::try_from(b).unwrap().into());
    Ok((answer[3] & 0x0f, ip))
}

fn dns_answer(zone: &[(String, [u8; 4])], query: &[u8]) -> Vec<u8> {
    let (mut at, mut name) = (12, Vec::new());
    while query[at] != 0 {
        let len = usize::from(query[at]);
        name.push(String::from_utf8_lossy(&query[at + 1..=at + len]).into_owned());
        at += len + 1;
    }
    let mut answer = query[..at + 5].to_vec();
    answer[2] |= 0x80;
    match zone.iter().find(|(n, _)| *n == name.join(".")) {
        Some((_, ip)) => {
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(ip);
        }
        None => answer[3] = 3,
    }
    answer
}
