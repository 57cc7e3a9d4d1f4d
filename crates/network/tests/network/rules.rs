//! Headers set on requests, over HTTP and HTTPS, for real.

use std::io::Read as _;
use std::sync::Arc;

use woodfrog_network::{AllowRule, EgressPolicy, HeaderRule, Live, Network, NetworkConfig};

use crate::support::{World, inside};
use crate::web::{Identity, ask, field, get, open, open_tls, read_head, serve};

const ZONE: [(&str, [u8; 4]); 3] = [
    ("api.example.com", [203, 0, 113, 10]),
    ("other.example.com", [203, 0, 113, 20]),
    ("inner.example.com", [10, 77, 0, 10]),
];

fn rule(host: &str) -> HeaderRule {
    HeaderRule::new(host, [("X-Key", "secret-1"), ("authorization", "Bearer t")]).unwrap()
}

fn with_rules(rules: &[HeaderRule]) -> EgressPolicy {
    EgressPolicy {
        rules: rules.to_vec(),
        ..EgressPolicy::default()
    }
}

/// A request from inside a sandbox, on a connection of its own.
async fn plain(world: &World, address: &'static str, request: String) -> (String, String) {
    let asked = move || ask(&mut open(address)?, &request);
    inside(world.netns("sb0"), asked).await.unwrap()
}

#[test]
fn headers_are_set_on_plain_requests_to_hosts_with_a_rule() {
    let mut world = World::new();
    world.dns_server(&ZONE);
    for address in ["203.0.113.10:80", "203.0.113.20:80", "10.77.0.10:80"] {
        serve(&world, address, None);
    }
    world.tcp_server("inet", "203.0.113.20:8000");
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        let rules = [rule("api.example.com"), rule("inner.example.com")];
        world.attach(&network, 0, with_rules(&rules)).await;
        let own = "X-KEY: own\r\nx-key: again\r\nConnection: close, authorization\r\n";
        let (head, seen) = plain(&world, "203.0.113.10:80", get("api.example.com", own)).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(field(&seen, "x-key"), Some("secret-1"), "{seen}");
        assert_eq!(field(&seen, "authorization"), Some("bearer t"), "{seen}");
        assert_eq!(seen.matches("x-key").count(), 1, "{seen}");
        assert_eq!(field(&head, "alt-svc"), None);
        // Whoever merely is called like the host gets nothing: the name is looked up.
        let (_, seen) = plain(&world, "203.0.113.20:80", get("api.example.com", "")).await;
        assert!(seen.starts_with("served by 203.0.113.10:80"), "{seen}");
        // All else passes, to where the client wants to go.
        let (_, seen) = plain(&world, "203.0.113.20:80", get("other.example.com", "")).await;
        assert!(seen.starts_with("served by 203.0.113.20:80"), "{seen}");
        assert_eq!(field(&seen, "x-key"), None);
        let greeted = inside(world.netns("sb0"), || {
            crate::support::tcp("203.0.113.20:8000")
        });
        assert_eq!(greeted.await.unwrap(), "203.0.113.20:8000 from 192.0.2.2");
        // A rule makes nothing reachable that is denied.
        let (head, _) = plain(&world, "203.0.113.10:80", get("inner.example.com", "")).await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        network.teardown().await.unwrap();
    });
}

#[test]
fn one_connection_is_for_one_host_and_serves_many_requests() {
    let mut world = World::new();
    world.dns_server(&ZONE);
    serve(&world, "203.0.113.10:80", None);
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        world
            .attach(&network, 0, with_rules(&[rule("api.example.com")]))
            .await;
        let (mut stream, answers) = inside(world.netns("sb0"), || {
            let mut stream = open("203.0.113.10:80").unwrap();
            let post =
                "POST /y HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 5\r\n\r\nhello";
            let first = ask(&mut stream, &get("api.example.com", "")).unwrap();
            let second = ask(&mut stream, post).unwrap();
            (stream, [first.1, second.1])
        })
        .await;
        assert!(answers[1].contains("request 2") && answers[1].ends_with("hello"));
        assert_eq!(field(&answers[1], "x-key"), Some("secret-1"));
        // What is set is replaced for the connection, too.
        let newer = HeaderRule::new("*.example.com", [("x-key", "secret-2")]).unwrap();
        network.update(0, with_rules(&[newer])).await.unwrap();
        let (stream_back, (_, seen)) = inside(world.netns("sb0"), move || {
            let answer = ask(&mut stream, &get("api.example.com", "")).unwrap();
            (stream, answer)
        })
        .await;
        stream = stream_back;
        assert_eq!(field(&seen, "x-key"), Some("secret-2"), "{seen}");
        assert_eq!(field(&seen, "authorization"), None);
        let misdirected = move || ask(&mut stream, &get("other.example.com", "")).unwrap();
        let (head, _) = inside(world.netns("sb0"), misdirected).await;
        assert!(head.starts_with("HTTP/1.1 421"), "{head}");
        let trace = "TRACE / HTTP/1.1\r\nHost: api.example.com\r\n\r\n".to_owned();
        let (head, told) = plain(&world, "203.0.113.10:80", trace).await;
        assert!(head.starts_with("HTTP/1.1 405"), "{head}");
        assert!(!told.contains("secret"));
        network.teardown().await.unwrap();
    });
}

/// A world with a server that speaks TLS as `api.example.com`, which the host trusts or not.
fn secured(world: &World, trusted: bool) -> (NetworkConfig, Arc<Identity>) {
    world.dns_server(&ZONE);
    let identity = Arc::new(Identity::new("api.example.com"));
    serve(world, "203.0.113.10:443", Some(Arc::clone(&identity)));
    let mut config = world.config();
    if trusted {
        config.extra_roots = vec![identity.der.clone()];
    }
    (config, identity)
}

#[test]
fn headers_are_set_inside_tls() {
    let mut world = World::new();
    let (config, _) = secured(&world, true);
    let other = Arc::new(Identity::new("other.example.com"));
    serve(&world, "203.0.113.20:443", Some(Arc::clone(&other)));
    let authority = config.authority.certificate().to_owned();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        world
            .attach(&network, 0, with_rules(&[rule("*.example.com")]))
            .await;
        let trusted = authority.clone();
        let seen = inside(world.netns("sb0"), move || {
            let mut stream = open_tls("203.0.113.10:443", "api.example.com", &trusted).unwrap();
            ask(&mut *stream, &get("api.example.com", "")).unwrap();
            ask(&mut *stream, &get("api.example.com", "X-Key: own\r\n"))
                .unwrap()
                .1
        })
        .await;
        assert_eq!(field(&seen, "x-key"), Some("secret-1"), "{seen}");
        assert!(seen.contains("request 2"), "one connection: {seen}");
        // WebSockets go through.
        let trusted = authority.clone();
        inside(world.netns("sb0"), move || {
            let mut stream = open_tls("203.0.113.10:443", "api.example.com", &trusted).unwrap();
            let upgrade = get(
                "api.example.com",
                "Connection: Upgrade\r\nUpgrade: websocket\r\n",
            );
            stream.write_all(upgrade.as_bytes()).unwrap();
            stream.flush().unwrap();
            let head = read_head(&mut *stream).unwrap();
            assert!(head.starts_with("HTTP/1.1 101"), "{head}");
            stream.write_all(b"frames").unwrap();
            stream.flush().unwrap();
            let mut echoed = [0; 6];
            stream.read_exact(&mut echoed).unwrap();
            assert_eq!(&echoed, b"frames");
        })
        .await;
        // A host without a rule is not touched: it shows its own certificate.
        network
            .update(0, with_rules(&[rule("api.example.com")]))
            .await
            .unwrap();
        let pem = other.pem.clone();
        let seen = inside(world.netns("sb0"), move || {
            let mut stream = open_tls("203.0.113.20:443", "other.example.com", &pem).unwrap();
            ask(&mut *stream, &get("other.example.com", "")).unwrap().1
        })
        .await;
        assert_eq!(field(&seen, "x-key"), None, "{seen}");
        network.teardown().await.unwrap();
    });
}

#[test]
fn a_server_that_does_not_prove_its_name_gets_nothing() {
    let mut world = World::new();
    let (config, _) = secured(&world, false);
    let authority = config.authority.certificate().to_owned();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        world
            .attach(&network, 0, with_rules(&[rule("api.example.com")]))
            .await;
        let (head, text) = inside(world.netns("sb0"), move || {
            let mut stream = open_tls("203.0.113.10:443", "api.example.com", &authority).unwrap();
            ask(&mut *stream, &get("api.example.com", "")).unwrap()
        })
        .await;
        assert!(head.starts_with("HTTP/1.1 502"), "{head}{text}");
        network.teardown().await.unwrap();
    });
}

#[test]
fn rules_and_allowed_names_go_together() {
    let mut world = World::new();
    world.dns_server(&ZONE);
    for address in ["203.0.113.10:80", "203.0.113.20:80"] {
        serve(&world, address, None);
    }
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        let allow = |text: &str| AllowRule::Domain(text.parse().unwrap());
        let closed = EgressPolicy {
            internet: false,
            allow: vec![allow("api.example.com")],
            ..with_rules(&[rule("*.example.com")])
        };
        world.attach(&network, 0, closed).await;
        let (_, seen) = plain(&world, "203.0.113.10:80", get("api.example.com", "")).await;
        assert_eq!(field(&seen, "x-key"), Some("secret-1"), "{seen}");
        let (head, _) = plain(&world, "203.0.113.20:80", get("other.example.com", "")).await;
        assert!(head.starts_with("HTTP/1.1 403"), "{head}");
        // By address, where addresses are what is allowed.
        let ranges = EgressPolicy {
            internet: false,
            allow: vec![AllowRule::Cidr("203.0.113.20".parse().unwrap())],
            ..with_rules(&[rule("*.example.com")])
        };
        network.update(0, ranges).await.unwrap();
        let (_, seen) = plain(&world, "203.0.113.20:80", get("other.example.com", "")).await;
        assert_eq!(field(&seen, "x-key"), Some("secret-1"), "{seen}");
        let refused = inside(world.netns("sb0"), || open("203.0.113.10:80"));
        let refused = refused.await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        network.teardown().await.unwrap();
    });
}

#[test]
fn after_a_restart_requests_wait_for_what_is_set_on_them() {
    let mut world = World::new();
    world.dns_server(&ZONE);
    serve(&world, "203.0.113.10:80", None);
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config.clone(), &[]).await;
        let known = with_rules(&[rule("api.example.com")]);
        world.attach(&network, 0, known.clone()).await;
        drop(network);
        let unknown = with_rules(&[HeaderRule::unknown("api.example.com").unwrap()]);
        let live = Live {
            slot: 0,
            policy: unknown,
        };
        let network = Network::setup(config, &[live]).await;
        let early = tokio::spawn(inside(world.netns("sb0"), || {
            ask(
                &mut open("203.0.113.10:80").unwrap(),
                &get("api.example.com", ""),
            )
            .unwrap()
        }));
        network.update(0, known).await.unwrap();
        let (_, seen) = early.await.unwrap();
        assert_eq!(field(&seen, "x-key"), Some("secret-1"), "{seen}");
        network.teardown().await.unwrap();
    });
}
