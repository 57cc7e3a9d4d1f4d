//! Servers and clients of HTTP, with and without TLS, as simple as they can be.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

use crate::support::{PATIENCE, World};

/// A stream, secured or not.
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// A server's certificate, which is its own authority.
pub(crate) struct Identity {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) pem: String,
    config: Arc<ServerConfig>,
}

impl Identity {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let secret = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret.into())
            .unwrap();
        Self {
            der: certificate.der().clone(),
            pem: certificate.pem(),
            config: Arc::new(config),
        }
    }

    /// The server's side of TLS.
    pub(crate) fn accept(&self, stream: TcpStream) -> Box<dyn Stream> {
        let connection = ServerConnection::new(Arc::clone(&self.config)).unwrap();
        Box::new(rustls::StreamOwned::new(connection, stream))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Serves HTTP: answers every request with its own head, in lower case, and what followed it.
/// A WebSocket is opened and echoes. A path `/count` is answered with the number of the request
/// on its connection, `/slow` in two chunks.
pub(crate) fn serve(world: &World, address: &'static str, tls: Option<Arc<Identity>>) {
    let listener = world.listen("inet", address);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let tls = tls.clone();
            std::thread::spawn(move || {
                let mut stream: Box<dyn Stream> = match &tls {
                    Some(identity) => identity.accept(stream),
                    None => Box::new(stream),
                };
                // Whoever hangs up ends it.
                let _ = talk(&mut *stream, address);
            });
        }
    });
}

fn talk(stream: &mut dyn Stream, address: &str) -> io::Result<()> {
    for count in 1.. {
        let head = read_head(stream)?.to_lowercase();
        let length = field(&head, "content-length").and_then(|text| text.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body)?;
        if field(&head, "upgrade").is_some() {
            let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                          Upgrade: websocket\r\n\r\n";
            stream.write_all(switch.as_bytes())?;
            stream.flush()?;
            let mut byte = [0];
            while stream.read(&mut byte)? == 1 {
                stream.write_all(&byte)?;
                stream.flush()?;
            }
            return Ok(());
        }
        let text = String::from_utf8_lossy(&body);
        let content = format!("served by {address}, request {count}\n{head}{text}");
        let length = content.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nAlt-Svc: h3=\":443\"\r\nContent-Length: {length}\r\n\r\n{content}"
        )?;
        stream.flush()?;
    }
    Ok(())
}

/// The value of a header in a head.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find_map(|(key, value)| key.trim().eq_ignore_ascii_case(name).then(|| value.trim()))
}

/// Reads a head, its empty line included.
pub(crate) fn read_head(stream: &mut (impl Read + ?Sized)) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Reads an answer: its head and its content.
pub(crate) fn read_answer(stream: &mut (impl Read + ?Sized)) -> io::Result<(String, String)> {
    let head = read_head(stream)?;
    let length = field(&head, "content-length").and_then(|text| text.parse().ok());
    let mut content = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut content)?;
    Ok((head, String::from_utf8_lossy(&content).into_owned()))
}

/// Connects.
pub(crate) fn open(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Connects with TLS, trusting one certificate alone.
pub(crate) fn open_tls(address: &str, host: &str, trusted: &str) -> io::Result<Box<dyn Stream>> {
    let mut roots = RootCertStore::empty();
    for certificate in woodfrog_network::certificates(trusted.as_bytes()).unwrap() {
        roots.add(certificate).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // As programs do that would rather have HTTP/2.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, open(address)?);
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(Box::new(stream))
}

/// A request without a body.
pub(crate) fn get(host: &str, more: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
}

/// Asks and reads the answer.
pub(crate) fn ask(stream: &mut dyn Stream, request: &str) -> io::Result<(String, String)> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    read_answer(stream)
}
