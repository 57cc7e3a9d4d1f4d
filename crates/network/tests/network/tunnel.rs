//! Connections through an egress proxy, for real.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::{Arc, Mutex};

use woodfrog_network::{AllowRule, EgressPolicy, HeaderRule, Network, Route, SocksProxy};

use crate::support::{PATIENCE, World, enter, inside, read_line, tcp};
use crate::web::{Identity, Stream, ask, field, get, open, serve};

/// What a proxy was asked for.
type Asked = Arc<Mutex<Vec<String>>>;

/// A SOCKS5 proxy that wants `ann` and `secret-1`, knows one name, and writes down what it is
/// asked for.
fn proxy(world: &World, name: &str, address: &str, tls: Option<Arc<Identity>>) -> Asked {
    let asked = Asked::default();
    let listener = world.listen(name, address);
    let (list, netns) = (Arc::clone(&asked), world.netns("inet"));
    let netns = Arc::new(netns);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let (list, netns, tls) = (Arc::clone(&list), Arc::clone(&netns), tls.clone());
            std::thread::spawn(move || {
                enter(&netns);
                // Whoever hangs up ends it.
                let _ = match tls {
                    None => {
                        let far = greet(&mut &stream, &list);
                        far.and_then(|far| both_ways(&stream, &far))
                    }
                    Some(identity) => {
                        let mut near = identity.accept(stream);
                        let far = greet(&mut *near, &list);
                        far.and_then(|far| one_way(&mut *near, &far))
                    }
                };
            });
        }
    });
    asked
}

fn greet(near: &mut (impl Read + Write + ?Sized), asked: &Asked) -> io::Result<TcpStream> {
    let mut read = |count: usize| {
        let mut bytes = vec![0; count];
        near.read_exact(&mut bytes).map(|()| bytes)
    };
    let offered = read(2)?;
    let methods = read(usize::from(offered[1]))?;
    if !methods.contains(&2) {
        near.write_all(&[5, 255])?;
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    near.write_all(&[5, 2])?;
    near.flush()?;
    let mut login = vec![0; 2 + 3 + 1 + 8];
    near.read_exact(&mut login)?;
    let good = login == b"\x01\x03ann\x08secret-1";
    near.write_all(&[1, u8::from(!good)])?;
    near.flush()?;
    let mut head = [0; 4];
    near.read_exact(&mut head)?;
    let host = match head[3] {
        1 => {
            let mut octets = [0; 4];
            near.read_exact(&mut octets)?;
            Ipv4Addr::from(octets).to_string()
        }
        _ => {
            let mut length = [0];
            near.read_exact(&mut length)?;
            let mut name = vec![0; usize::from(length[0])];
            near.read_exact(&mut name)?;
            String::from_utf8_lossy(&name).into_owned()
        }
    };
    let mut port = [0; 2];
    near.read_exact(&mut port)?;
    let port = u16::from_be_bytes(port);
    asked.lock().unwrap().push(format!("{host}:{port}"));
    let known = match host.as_str() {
        "only.the.proxy" => "198.51.100.10",
        other => other,
    };
    let address = SocketAddrV4::new(known.parse().map_err(io::Error::other)?, port);
    let far = TcpStream::connect_timeout(&SocketAddr::V4(address), PATIENCE)?;
    near.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    near.flush()?;
    Ok(far)
}

fn both_ways(near: &TcpStream, far: &TcpStream) -> io::Result<()> {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*near, &mut &*far);
            let _ = far.shutdown(std::net::Shutdown::Write);
        });
        let done = io::copy(&mut &*far, &mut &*near).map(drop);
        let _ = near.shutdown(std::net::Shutdown::Both);
        done
    })
}

/// Only the far side speaks.
fn one_way(near: &mut dyn Stream, mut far: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let length = far.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        near.write_all(&buffer[..length])?;
        near.flush()?;
    }
}

fn through(address: &str, password: &str) -> SocksProxy {
    SocksProxy::new(address, Some("ann"), Some(password)).unwrap()
}

fn by(proxy: SocksProxy) -> EgressPolicy {
    EgressPolicy {
        route: Route::Proxy(Arc::new(proxy)),
        ..EgressPolicy::default()
    }
}

async fn greeted(world: &World, address: &'static str) -> io::Result<String> {
    inside(world.netns("sb0"), move || tcp(address)).await
}

#[test]
fn all_connections_go_through_the_proxy_and_none_besides() {
    let mut world = World::new();
    world.dns_server(&[
        ("proxy.example.com", [203, 0, 113, 20]),
        ("inner.example.com", [10, 77, 0, 10]),
    ]);
    for address in [
        "203.0.113.10:8000",
        "203.0.113.10:443",
        "198.51.100.10:8000",
        "10.77.0.10:8000",
    ] {
        world.tcp_server("inet", address);
    }
    let asked = proxy(&world, "inet", "203.0.113.20:1080", None);
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        world.attach(&network, 0, EgressPolicy::default()).await;
        let open_before = inside(world.netns("sb0"), || {
            let mut stream = open("203.0.113.10:8000").unwrap();
            read_line(&mut stream).unwrap();
            stream
        });
        let mut open_before = open_before.await;
        let mut policy = by(through("proxy.example.com:1080", "secret-1"));
        network.update(0, policy.clone()).await.unwrap();
        // What was open goes on through nobody.
        let said = open_before.write_all(b"ping\n");
        assert!(said.and_then(|()| open_before.read(&mut [0; 8])).is_err());
        for address in ["203.0.113.10:8000", "203.0.113.10:443"] {
            let line = greeted(&world, address).await.unwrap();
            // The proxy connects from where it is, which is not the host.
            assert!(
                line.starts_with(address) && !line.contains("192.0.2.2"),
                "{line}"
            );
        }
        let seen = std::mem::take(&mut *asked.lock().unwrap());
        assert_eq!(seen, ["203.0.113.10:8000", "203.0.113.10:443"]);
        // Denied first, by the sandbox's own rules and by the operator's.
        policy.deny = vec!["198.51.100.0/24".parse().unwrap()];
        network.update(0, policy.clone()).await.unwrap();
        for denied in ["198.51.100.10:8000", "10.77.0.10:8000", "192.0.2.2:22"] {
            let error = greeted(&world, denied).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{denied}");
        }
        assert_eq!(asked.lock().unwrap().len(), 0, "the proxy is not asked");
        // No way besides it: wrong credentials, nobody there, a place where none may be.
        for wrong in [
            through("203.0.113.20:1080", "secret-2"),
            through("203.0.113.20:1", "secret-1"),
            through("10.77.0.10:1080", "secret-1"),
            through("192.0.2.2:1080", "secret-1"),
            through("inner.example.com:1080", "secret-1"),
        ] {
            network.update(0, by(wrong.clone())).await.unwrap();
            let line = greeted(&world, "203.0.113.10:8000").await;
            let ended = line.as_ref().is_ok_and(String::is_empty) || line.is_err();
            assert!(ended, "{wrong:?}: {line:?}");
        }
        network.update(0, EgressPolicy::default()).await.unwrap();
        let line = greeted(&world, "203.0.113.10:8000").await.unwrap();
        assert!(line.ends_with("from 192.0.2.2"), "{line}");
        network.teardown().await.unwrap();
    });
}

#[test]
fn proxies_are_where_sandboxes_may_go_or_the_operator_says() {
    let mut world = World::new();
    world.dns_server(&[
        ("proxy.example.com", [203, 0, 113, 20]),
        ("inner.example.com", [10, 77, 0, 10]),
    ]);
    world.tcp_server("inet", "203.0.113.10:8000");
    let asked = proxy(&world, "host", "127.0.0.1:1080", None);
    let mut config = world.config();
    config.proxies = vec!["127.0.0.1".parse().unwrap()];
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        for (address, allowed) in [
            ("proxy.example.com:1080", true),
            ("203.0.113.7:1080", true),
            ("127.0.0.1:1080", true),
            ("127.0.0.2:1080", false),
            ("192.0.2.2:1080", false),
            ("169.254.169.254:80", false),
            ("10.77.0.10:1080", false),
            ("inner.example.com:1080", false),
            ("nowhere.example.com:1080", false),
        ] {
            let checked = network.check_route(&by(through(address, "secret-1"))).await;
            assert_eq!(checked.is_ok(), allowed, "{address}: {checked:?}");
        }
        let policy = by(through("127.0.0.1:1080", "secret-1"));
        world.attach(&network, 0, policy).await;
        greeted(&world, "203.0.113.10:8000").await.unwrap();
        assert_eq!(*asked.lock().unwrap(), ["203.0.113.10:8000"]);
        // The sandbox itself goes there by no way.
        let own = greeted(&world, "192.0.2.2:1080").await.unwrap_err();
        assert_eq!(own.kind(), io::ErrorKind::ConnectionRefused);
        network.teardown().await.unwrap();
    });
}

#[test]
fn a_proxy_can_be_spoken_to_over_tls() {
    let mut world = World::new();
    world.tcp_server("inet", "203.0.113.10:8000");
    let identity = Arc::new(Identity::new("proxy.example.com"));
    let asked = proxy(
        &world,
        "inet",
        "203.0.113.20:1080",
        Some(Arc::clone(&identity)),
    );
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        let secured = |name: &str, ca: Option<&str>| {
            let proxy = through("203.0.113.20:1080", "secret-1");
            by(proxy.over_tls(Some(name), ca).unwrap())
        };
        let good = secured("proxy.example.com", Some(&identity.pem));
        world.attach(&network, 0, good).await;
        let line = greeted(&world, "203.0.113.10:8000").await.unwrap();
        assert!(line.starts_with("203.0.113.10:8000"), "{line}");
        for wrong in [
            secured("other.example.com", Some(&identity.pem)),
            secured("proxy.example.com", None),
            by(through("203.0.113.20:1080", "secret-1")),
        ] {
            network.update(0, wrong).await.unwrap();
            let line = greeted(&world, "203.0.113.10:8000").await;
            assert!(line.is_err() || line.is_ok_and(|line| line.is_empty()));
        }
        assert_eq!(asked.lock().unwrap().len(), 1);
        network.teardown().await.unwrap();
    });
}

#[test]
fn names_and_headers_go_through_the_proxy_too() {
    let mut world = World::new();
    world.dns_server(&[("api.example.com", [203, 0, 113, 10])]);
    serve(&world, "203.0.113.10:80", None);
    serve(&world, "198.51.100.10:80", None);
    let asked = proxy(&world, "inet", "203.0.113.20:1080", None);
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        let rule = HeaderRule::new("*.example.com", [("x-key", "secret-9")]).unwrap();
        let mut policy = by(through("203.0.113.20:1080", "secret-1"));
        policy.rules = vec![rule];
        world.attach(&network, 0, policy.clone()).await;
        let request = |host: &'static str| {
            let ask = move || ask(&mut open("203.0.113.10:80").unwrap(), &get(host, ""));
            inside(world.netns("sb0"), ask)
        };
        let (_, seen) = request("api.example.com").await.unwrap();
        assert_eq!(field(&seen, "x-key"), Some("secret-9"), "{seen}");
        // Allowed by its name, which only the proxy can look up.
        policy.internet = false;
        policy.allow = vec![AllowRule::Domain("only.the.proxy".parse().unwrap())];
        network.update(0, policy).await.unwrap();
        let (_, seen) = request("only.the.proxy").await.unwrap();
        assert!(seen.starts_with("served by 198.51.100.10:80"), "{seen}");
        let (head, _) = request("evil.org").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        let seen = asked.lock().unwrap().clone();
        assert_eq!(seen, ["203.0.113.10:80", "only.the.proxy:80"]);
        network.teardown().await.unwrap();
    });
}
