//! Sandboxes with rules of their own, DNS and the egress proxy, for real, in namespaces.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use crate::support::{PATIENCE, World, enter, lookup, read_line, run, tcp, udp};
use woodfrog_network::{EgressPolicy, Network, PolicyInput};

fn policy(internet: bool, allow: &[&str], deny: &[&str]) -> EgressPolicy {
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let (allow, deny) = (own(allow), own(deny));
    let input = PolicyInput {
        internet: Some(internet),
        allow_out: &allow,
        deny_out: &deny,
        ..PolicyInput::default()
    };
    EgressPolicy::parse(&input).unwrap()
}

fn assert_refused(result: std::io::Result<String>, what: &str) {
    let error = result.expect_err(what);
    assert_eq!(
        error.kind(),
        ErrorKind::ConnectionRefused,
        "{what}: {error}"
    );
}

#[test]
fn ranges_are_allowed_and_denied() {
    let mut world = World::new();
    for address in [
        "203.0.113.10:8000",
        "203.0.113.20:8000",
        "198.51.100.10:8000",
        "10.77.0.10:8000",
    ] {
        world.tcp_server("inet", address);
    }
    world.udp_server("inet", "203.0.113.20:9000");
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        let cases: [(EgressPolicy, [bool; 3]); 5] = [
            (policy(true, &[], &["203.0.113.0/24"]), [false, false, true]),
            (
                policy(true, &["203.0.113.10"], &["203.0.113.0/24"]),
                [true, false, true],
            ),
            (policy(false, &[], &[]), [false, false, false]),
            (
                policy(false, &["198.51.100.0/24", "198.51.100.10"], &[]),
                [false, false, true],
            ),
            (
                policy(
                    true,
                    &["203.0.113.0/24", "10.0.0.0/8"],
                    &["0.0.0.0/0", "1.2.3.4"],
                ),
                [true, true, false],
            ),
        ];
        world.attach(&network, 7, EgressPolicy::default()).await;
        for (policy, expected) in cases {
            network.update(7, policy.clone()).await.unwrap();
            let targets = [
                "203.0.113.10:8000",
                "203.0.113.20:8000",
                "198.51.100.10:8000",
            ];
            for (target, reachable) in targets.iter().zip(expected) {
                let result = world.run_in("sb7", || tcp(target));
                if reachable {
                    result.unwrap();
                } else {
                    assert_refused(result, &format!("{policy:?} {target}"));
                }
            }
            // No policy opens what the operator closed.
            assert_refused(
                world.run_in("sb7", || tcp("10.77.0.10:8000")),
                "private range",
            );
        }
        network
            .update(7, policy(true, &[], &["203.0.113.20"]))
            .await
            .unwrap();
        let error = world
            .run_in("sb7", || udp("203.0.113.20:9000"))
            .unwrap_err();
        assert_ne!(
            error.kind(),
            ErrorKind::WouldBlock,
            "refused at once, not silently"
        );
        // A neighbour keeps its own rules.
        world
            .attach(&network, 8, policy(false, &["203.0.113.10"], &[]))
            .await;
        assert_refused(
            world.run_in("sb8", || tcp("198.51.100.10:8000")),
            "neighbour",
        );
        world.run_in("sb8", || tcp("203.0.113.10:8000")).unwrap();
        world.run_in("sb7", || tcp("198.51.100.10:8000")).unwrap();
        network.detach(8);
        network.settled().await;
        assert!(!run(&["nft", "list", "ruleset"]).contains("p_8"));
        network.teardown().await.unwrap();
    });
}

#[test]
fn the_operator_can_exempt_ranges() {
    let mut world = World::new();
    world.tcp_server("inet", "10.77.0.10:8000");
    let mut config = world.config();
    config.allow = vec!["10.0.0.0/8".parse().unwrap()];
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        world.attach(&network, 0, EgressPolicy::default()).await;
        world.run_in("sb0", || tcp("10.77.0.10:8000")).unwrap();
        // But never other sandboxes or the host.
        let two = world.attach(&network, 1, EgressPolicy::default()).await;
        world.tcp_server("sb1", "0.0.0.0:7000");
        world.tcp_server("host", "0.0.0.0:7000");
        for target in [two.addr, two.gateway] {
            let result = world.run_in("sb0", || tcp(&format!("{target}:7000")));
            assert_refused(result, "sandbox or host");
        }
        network
            .update(0, policy(true, &[], &["10.0.0.0/8"]))
            .await
            .unwrap();
        assert_refused(world.run_in("sb0", || tcp("10.77.0.10:8000")), "own rule");
        network.teardown().await.unwrap();
    });
}

#[test]
fn updates_cut_open_connections() {
    let mut world = World::new();
    world.tcp_server("inet", "203.0.113.10:8000");
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        world.attach(&network, 0, EgressPolicy::default()).await;
        let open = || {
            let mut stream = TcpStream::connect("203.0.113.10:8000").unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            read_line(&mut stream).unwrap();
            stream
        };
        let mut stream = world.run_in("sb0", open);
        network
            .update(0, policy(true, &[], &["198.51.100.0/24"]))
            .await
            .unwrap();
        stream.write_all(b"ping\n").unwrap();
        assert_eq!(read_line(&mut stream).unwrap(), "ping", "still allowed");
        network.update(0, policy(false, &[], &[])).await.unwrap();
        // The reset may be there before anything is said.
        let said = stream.write_all(b"ping\n");
        let error = said.and_then(|()| stream.read(&mut [0; 16])).unwrap_err();
        assert!(
            matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
            ),
            "{error}"
        );
        network.teardown().await.unwrap();
    });
}

#[test]
fn dns_is_forwarded_by_policy() {
    let mut world = World::new();
    world.dns_server(&[("api.example.com", [203, 0, 113, 10])]);
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        world.attach(&network, 0, EgressPolicy::default()).await;
        // The forwarder runs on this very thread's runtime: ask from others.
        let ask = async |name: &'static str, tcp: bool| {
            let netns = world.netns("sb0");
            tokio::task::spawn_blocking(move || {
                std::thread::spawn(move || {
                    enter(&netns);
                    lookup(name, tcp)
                })
                .join()
                .unwrap()
            })
            .await
            .unwrap()
        };
        let expected = Some("203.0.113.10".parse().unwrap());
        for over_tcp in [false, true] {
            assert_eq!(
                ask("api.example.com", over_tcp).await.unwrap(),
                (0, expected)
            );
            assert_eq!(ask("nowhere.example.com", over_tcp).await.unwrap().0, 3);
        }
        network
            .update(0, policy(true, &["*.example.com"], &["0.0.0.0/0"]))
            .await
            .unwrap();
        assert_eq!(ask("api.example.com", false).await.unwrap(), (0, expected));
        assert_eq!(ask("secret.evil.org", false).await.unwrap().0, 5, "refused");
        network.update(0, policy(false, &[], &[])).await.unwrap();
        assert_eq!(
            ask("api.example.com", true).await.unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        let error = ask("api.example.com", false).await.unwrap_err();
        assert_ne!(error.kind(), ErrorKind::WouldBlock);
        network.teardown().await.unwrap();
    });
}

/// A minimal ClientHello.
fn client_hello(name: &str) -> Vec<u8> {
    let n = name.len() as u16;
    let be = |v: u16| v.to_be_bytes();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(be(n + 9));
    for word in [0, n + 5, n + 3] {
        body.extend(be(word));
    }
    body.push(0);
    body.extend(be(n));
    body.extend(name.as_bytes());
    let mut hello = vec![22, 3, 1];
    hello.extend(be(body.len() as u16 + 4));
    hello.extend([1, 0]);
    hello.extend(be(body.len() as u16));
    hello.extend(body);
    hello
}

/// Sends `first` to `address` and reads a line of the answer and what follows.
fn exchange(address: &str, first: &[u8]) -> (TcpStream, String, Vec<u8>) {
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(first).unwrap();
    let line = read_line(&mut stream).unwrap();
    let mut echoed = vec![0; first.len()];
    let len = if line.contains(" from ") {
        stream
            .read_exact(&mut echoed)
            .map(|()| echoed.len())
            .unwrap()
    } else {
        0
    };
    echoed.truncate(len);
    (stream, line, echoed)
}

#[test]
fn domains_are_allowed_by_name() {
    let mut world = World::new();
    world.dns_server(&[
        ("api.example.com", [203, 0, 113, 10]),
        ("rebind.example.com", [10, 77, 0, 10]),
        ("host.example.com", [192, 0, 2, 2]),
    ]);
    for address in [
        "203.0.113.10:443",
        "203.0.113.10:80",
        "203.0.113.20:80",
        "198.51.100.10:80",
        "203.0.113.10:8000",
        "10.77.0.10:80",
    ] {
        world.tcp_server("inet", address);
    }
    world.tcp_server("host", "192.0.2.2:80");
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        let rules = policy(true, &["*.example.com", "203.0.113.20"], &["0.0.0.0/0"]);
        world.attach(&network, 0, rules).await;
        let ask = async |address: &'static str, first: Vec<u8>| {
            let netns = world.netns("sb0");
            tokio::task::spawn_blocking(move || {
                std::thread::spawn(move || {
                    enter(&netns);
                    exchange(address, &first)
                })
                .join()
                .unwrap()
            })
            .await
            .unwrap()
        };
        let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
        // Whatever address the client believes in, it is the name that counts.
        let (_, line, echoed) = ask("198.51.100.10:443", client_hello("api.example.com")).await;
        assert_eq!(line, "203.0.113.10:443 from 192.0.2.2");
        assert_eq!(echoed, client_hello("api.example.com"));
        let (_, line, _) = ask("203.0.113.10:443", client_hello("evil.org")).await;
        assert!(
            line.starts_with("\u{15}\u{3}\u{3}"),
            "a TLS alert: {line:?}"
        );
        let (mut stream, line, echoed) = ask("198.51.100.10:80", get("API.example.com")).await;
        assert_eq!(
            (line.as_str(), echoed),
            ("203.0.113.10:80 from 192.0.2.2", get("API.example.com"))
        );
        for host in [
            "evil.org",
            "example.com",
            "rebind.example.com",
            "host.example.com",
            "203.0.113.10",
        ] {
            let (_, line, _) = ask("203.0.113.10:80", get(host)).await;
            assert!(line.starts_with("HTTP/1.1 403"), "{host}: {line:?}");
        }
        // Allowed ranges need no name; other ports only know ranges.
        let (_, line, _) = ask("203.0.113.20:80", get("evil.org")).await;
        assert_eq!(line, "203.0.113.20:80 from 192.0.2.2");
        assert_refused(
            world.run_in("sb0", || tcp("203.0.113.10:8000")),
            "other port",
        );
        // An exchanged policy reaches connections under way.
        network
            .update(0, policy(true, &["other.org"], &["0.0.0.0/0"]))
            .await
            .unwrap();
        let rest = tokio::task::spawn_blocking(move || stream.read(&mut [0; 16]))
            .await
            .unwrap();
        assert!(
            matches!(rest, Ok(0)) || rest.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
        );
        network.update(0, EgressPolicy::default()).await.unwrap();
        let (_, line, _) = ask("198.51.100.10:80", get("evil.org")).await;
        assert_eq!(line, "198.51.100.10:80 from 192.0.2.2", "no proxy any more");
        network.teardown().await.unwrap();
    });
}
