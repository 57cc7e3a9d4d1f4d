//! Connections: protocols, slow clients, shutdown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::{Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use woodfrog_server::serve::{Faces, Listener, TlsSource, serve, tls};

use crate::common::{DRAIN, PATIENCE, Setup, World};

#[tokio::test]
async fn hosts_choose_the_face() {
    let world = World::with(Setup {
        domain: Some("box.test".into()),
        ..Setup::default()
    })
    .await;
    let at = |host: &str, path: &str| {
        let request = Request::builder().uri(path).header("host", host);
        world.fetch(request.body(Body::empty()).unwrap())
    };
    assert_eq!(at("api.box.test", "/who").await.text(), "control");
    assert_eq!(at("localhost", "/who").await.text(), "control");
    assert_eq!(
        at(&format!("49983-{}.box.test", world.id()), "/health")
            .await
            .status,
        204
    );
    assert_eq!(at("localhost", "/health").await.status, 404);
}

#[tokio::test]
async fn http_2_with_prior_knowledge() {
    let world = World::start().await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let uri = format!("http://49983-{}.localhost/health", world.id());
    let request = Request::builder().uri(uri).version(Version::HTTP_2);
    let answer = sender
        .send_request(request.body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(
        (answer.status(), answer.version()),
        (http::StatusCode::NO_CONTENT, Version::HTTP_2)
    );
}

#[tokio::test]
async fn tls_speaks_http_2_to_those_who_trust_the_authority() {
    let world = World::start().await;
    let directory = tempfile::tempdir().unwrap();
    let source = TlsSource::SelfSigned {
        directory: directory.path().into(),
        domain: "box.test".into(),
    };
    let made = tls::load(&source).unwrap();
    let authority = std::fs::read(made.authority.unwrap()).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let faces = Faces::new(
        Arc::clone(&world.plane) as Arc<dyn woodfrog_server::gateway::DataPlane>,
        axum::Router::new(),
        Arc::new(woodfrog_server::ServerOptions {
            domain: Some("box.test".into()),
            agent_cors: None,
        }),
    );
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(
        faces,
        vec![Listener {
            tcp,
            tls: Some(made.config),
        }],
        shutdown.clone(),
        DRAIN,
    ));
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&authority).unwrap())
        .unwrap();
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(roots)
    .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let host = format!("49983-{}.box.test", world.id());
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(host.clone()).unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .uri(format!("https://{host}/health"))
        .body(Body::empty())
        .unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 204);
    shutdown.cancel();
}

#[tokio::test]
async fn oversized_heads_are_refused() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let head = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nX-Big: {}\r\n\r\n",
        "a".repeat(300 << 10)
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the connection must end");
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn shutdown_lets_answers_finish_and_cuts_those_that_do_not() {
    let mut world = World::start().await;
    let mut quick = world.sh("sleep 0.3; echo done", &[]).await;
    quick.message().await;
    let mut endless = world.sh("exec sleep 300", &[]).await;
    endless.message().await;
    let begin = Instant::now();
    world.shutdown.cancel();
    let (messages, end) = quick.rest().await;
    assert_eq!((messages.len(), end), (2, serde_json::json!({})));
    assert!(endless.next().await.is_err(), "it must be cut");
    let served = tokio::time::timeout(PATIENCE, &mut world.served)
        .await
        .unwrap()
        .unwrap();
    served.unwrap();
    assert!(begin.elapsed() < DRAIN + PATIENCE);
    assert!(TcpStream::connect(world.address).await.is_err());
}

#[tokio::test]
async fn answers_under_way_have_exactly_the_time_that_is_set() {
    let drain = Duration::from_secs(3600);
    let asked = Arc::new(Notify::new());
    let heard = Arc::clone(&asked);
    let endless = axum::Router::new().fallback(move || async move {
        heard.notify_one();
        std::future::pending::<()>().await;
    });
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let listener = Listener { tcp, tls: None };
    let shutdown = CancellationToken::new();
    let faces = Faces::only(endless);
    let served = tokio::spawn(serve(faces, vec![listener], shutdown.clone(), drain));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let waited = tokio::time::timeout(PATIENCE, asked.notified()).await;
    waited.expect("the request arrives");
    // From here on time is what the timers say.
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    shutdown.cancel();
    served.await.unwrap().unwrap();
    let took = begin.elapsed();
    assert!(took >= drain && took < 2 * drain, "{took:?}");
}
