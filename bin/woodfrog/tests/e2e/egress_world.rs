//! An outside that sandboxes can reach: a web server in a network namespace that nothing else is
//! connected to, a name server, and a proxy.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, bail};
use rcgen::{CertificateParams, KeyPair};

/// Where the web server is; the host is the other address of the pair.
pub(crate) const OUTSIDE: &str = "198.51.100.218";
const HERE: &str = "198.51.100.219/31";
/// The web server's name, which only our name server knows.
pub(crate) const HOST: &str = "api.egress.test";

/// Answers every request with the head it got, over HTTP and HTTPS.
const WEB: &str = r#"
import http.server, ssl, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        text = f"from {self.client_address[0]}\n{self.headers}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    do_POST = do_GET
    def log_message(self, *_):
        pass
address, certificate, key = sys.argv[1:]
plain = http.server.ThreadingHTTPServer((address, 80), Handler)
secure = http.server.ThreadingHTTPServer((address, 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
secure.socket = context.wrap_socket(secure.socket, server_side=True)
threading.Thread(target=secure.serve_forever, daemon=True).start()
print("ready", flush=True)
plain.serve_forever()
"#;

/// The outside; gone when it is dropped.
pub(crate) struct Outside {
    namespace: String,
    link: String,
    web: Child,
    /// `address:port` of the name server.
    pub(crate) names: String,
    /// `address:port` of the proxy, and what it was asked for.
    pub(crate) proxy: String,
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Outside {
    /// Makes it; the web server's certificate is put into `dir` as `outside.pem`.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let namespace = format!("outside-{}", std::process::id());
        // Not `wf*`: those are sandboxes'.
        let link = format!("out{}", std::process::id());
        ip(&["netns", "add", &namespace])?;
        let made = Self::web(dir, &namespace, &link);
        let web = made.inspect_err(|_| {
            // The first failure is the one to tell.
            let _ = ip(&["netns", "del", &namespace]);
        })?;
        let asked = Arc::default();
        Ok(Self {
            namespace,
            link,
            web,
            names: name_server()?,
            proxy: proxy(&asked)?,
            asked,
        })
    }

    fn web(dir: &Path, namespace: &str, link: &str) -> Result<Child> {
        let ends = ["peer", "name", "in0", "netns", namespace];
        ip(&[&["link", "add", link, "type", "veth"], &ends[..]].concat())?;
        ip(&["addr", "add", HERE, "dev", link])?;
        ip(&["link", "set", link, "up"])?;
        let address = format!("{OUTSIDE}/31");
        ip(&["-n", namespace, "addr", "add", &address, "dev", "in0"])?;
        ip(&["-n", namespace, "link", "set", "in0", "up"])?;
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&key)?;
        let (pem, secret) = (dir.join("outside.pem"), dir.join("outside.key"));
        std::fs::write(&pem, certificate.pem())?;
        std::fs::write(&secret, key.serialize_pem())?;
        let mut web = Command::new("ip")
            .args(["netns", "exec", namespace, "python3", "-c", WEB, OUTSIDE])
            .args([&pem, &secret])
            .stdout(Stdio::piped())
            .spawn()
            .context("start the web server")?;
        let mut line = String::new();
        let out = web.stdout.take().context("the web server's output")?;
        BufReader::new(out).read_line(&mut line)?;
        if line != "ready\n" {
            bail!("the web server did not start");
        }
        Ok(web)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.web.kill();
        let _ = self.web.wait();
        // At once: a namespace goes in its own time, and the next one needs the address.
        let _ = ip(&["link", "del", &self.link]);
        let _ = ip(&["netns", "del", &self.namespace]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip").args(arguments).status()?;
    match status.success() {
        true => Ok(()),
        false => bail!("ip {arguments:?}"),
    }
}

/// Knows one name.
fn name_server() -> Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?.to_string();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            if let Some(answer) = answer(&buffer[..length]) {
                // Who does not hear it asks again.
                let _ = socket.send_to(&answer, peer);
            }
        }
    });
    Ok(address)
}

fn answer(query: &[u8]) -> Option<Vec<u8>> {
    let (mut at, mut name) = (12, Vec::new());
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push(String::from_utf8_lossy(query.get(at..at + length)?).into_owned());
        at += length;
    }
    let question = query.get(at..at + 4)?;
    let mut answer = query[..at + 4].to_vec();
    answer[2] |= 0x80;
    // No additional records: what the query had of them is not copied.
    answer[10..12].fill(0);
    match (name.join("."), question) {
        (name, [0, 1, 0, 1]) if name == HOST => {
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(OUTSIDE.parse::<Ipv4Addr>().ok()?.octets());
        }
        (name, _) if name == HOST => {}
        _ => answer[3] = 3,
    }
    Some(answer)
}

/// A SOCKS5 proxy on this machine that wants `ann` and `proxy-secret`.
fn proxy(asked: &Arc<Mutex<Vec<String>>>) -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?.to_string();
    let asked = Arc::clone(asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let asked = Arc::clone(&asked);
            std::thread::spawn(move || {
                // Whoever hangs up ends it.
                let _ = relay(&stream, &asked);
            });
        }
    });
    Ok(address)
}

fn relay(mut near: &TcpStream, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut two = [0; 2];
    near.read_exact(&mut two)?;
    near.read_exact(&mut vec![0; usize::from(two[1])])?;
    near.write_all(&[5, 2])?;
    let expected = b"\x01\x03ann\x0cproxy-secret";
    let mut login = vec![0; expected.len()];
    near.read_exact(&mut login)?;
    near.write_all(&[1, u8::from(login != expected)])?;
    let mut request = [0; 10];
    near.read_exact(&mut request)?;
    let [_, _, _, 1, a, b, c, d, high, low] = request else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let to = SocketAddrV4::new([a, b, c, d].into(), u16::from_be_bytes([high, low]));
    if let Ok(mut asked) = asked.lock() {
        asked.push(to.to_string());
    }
    let far = TcpStream::connect(to)?;
    near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*near, &mut &far);
            let _ = far.shutdown(std::net::Shutdown::Write);
        });
        let done = io::copy(&mut &far, &mut &*near).map(drop);
        let _ = near.shutdown(std::net::Shutdown::Both);
        done
    })
}
