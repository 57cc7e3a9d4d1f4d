//! Default-policy networking, for real, in namespaces.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{World, enter, run, tcp, udp, udp_within};
use woodfrog_network::{AttachError, EgressPolicy, Live, Network, NetworkMode};

#[test]
fn default_policy_reaches_the_internet_only() {
    let mut world = World::new();
    for address in ["203.0.113.10:8000", "10.77.0.10:8000", "169.254.169.254:80"] {
        world.tcp_server("inet", address);
    }
    world.udp_server("inet", "203.0.113.10:9000");
    world.tcp_server("host", "0.0.0.0:7000");
    world.tcp_server("host", "127.0.0.1:7001");
    world.run_in("inet", || tcp("192.0.2.2:7000")).unwrap();
    let config = world.config();
    let host = world.host();
    host.block_on(async || {
        let network = Network::setup(config, &[]).await;
        assert!(
            network.unavailable().is_none(),
            "{:?}",
            network.unavailable()
        );
        let one = world.attach(&network, 0, EgressPolicy::default()).await;
        let two = world.attach(&network, 1, EgressPolicy::default()).await;
        world.tcp_server("sb1", "0.0.0.0:7002");
        let (gateway, peer) = (one.gateway, two.addr);
        let reached = world.run_in("sb0", || tcp("203.0.113.10:8000")).unwrap();
        assert_eq!(reached, "203.0.113.10:8000 from 192.0.2.2", "masqueraded");
        assert_eq!(
            world.run_in("sb0", || udp("203.0.113.10:9000")).unwrap(),
            "203.0.113.10:9000"
        );
        for target in [
            "192.0.2.2:7000".to_owned(),
            format!("{gateway}:7000"),
            format!("{}:7000", two.gateway),
            format!("{peer}:7002"),
            "10.77.0.10:8000".to_owned(),
            "169.254.169.254:80".to_owned(),
        ] {
            let error = world.run_in("sb0", || tcp(&target)).expect_err(&target);
            assert_eq!(
                error.kind(),
                ErrorKind::ConnectionRefused,
                "{target}: {error}"
            );
        }
        // The sandbox's own loopback, never the host's.
        world.run_in("sb0", || tcp("127.0.0.1:7001")).unwrap_err();
        // Nobody gets in from outside either, although the uplink forwards now.
        run(&[
            "ip",
            "-n",
            &format!("{}-inet", world.tag),
            "route",
            "add",
            &format!("{peer}/32"),
            "via",
            "192.0.2.2",
        ]);
        // What comes is dropped: this waits as long as it may.
        let inside = format!("{peer}:7002").parse().unwrap();
        let connect = || TcpStream::connect_timeout(&inside, Duration::from_secs(5));
        world.run_in("inet", connect).unwrap_err();
        network.teardown().await.unwrap();
    });
}

#[test]
fn spoofed_sources_do_not_get_out() {
    let mut world = World::new();
    world.udp_server("inet", "203.0.113.10:9000");
    let config = world.config();
    let host = world.host();
    host.block_on(async || {
        // Many distributions set this; it would loosen the kernel's own check.
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2").unwrap();
        let network = Network::setup(config, &[]).await;
        world.attach(&network, 0, EgressPolicy::default()).await;
        let two = world.attach(&network, 1, EgressPolicy::default()).await;
        for forged in [
            two.addr.to_string(),
            "203.0.113.99".into(),
            "10.99.0.1".into(),
        ] {
            let sandbox = format!("{}-sb0", world.tag);
            run(&[
                "ip",
                "-n",
                &sandbox,
                "addr",
                "add",
                &format!("{forged}/32"),
                "dev",
                "lo",
            ]);
            let send = || {
                let socket = std::net::UdpSocket::bind((forged.as_str(), 0)).unwrap();
                socket.send_to(b"x", "203.0.113.10:9000").unwrap();
            };
            let before = forwarded(&world);
            world.run_in("sb0", send);
            world.run_in("sb0", || udp("203.0.113.10:9000")).unwrap();
            let after = forwarded(&world);
            // Of the three packets only the honest question and its answer were forwarded.
            assert_eq!(after - before, 2, "{forged}");
        }
        network.teardown().await.unwrap();
    });
}

/// Packets the host forwarded so far.
fn forwarded(world: &World) -> u64 {
    let text = world
        .run_in("host", || {
            std::fs::read_to_string("/proc/thread-self/net/snmp")
        })
        .unwrap();
    let mut lines = text
        .lines()
        .filter(|l| l.starts_with("Ip:"))
        .map(|l| l.split(' '));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    names
        .zip(values)
        .find(|(n, _)| *n == "ForwDatagrams")
        .unwrap()
        .1
        .parse()
        .unwrap()
}

#[test]
fn nothing_is_left_behind() {
    let mut world = World::new();
    let config = world.config();
    let host = world.host();
    let state = |world: &World| {
        world.run_in("host", || {
            let forwarding =
                std::fs::read_to_string("/proc/sys/net/ipv4/conf/up0/forwarding").unwrap();
            (
                run(&["nft", "list", "ruleset"]),
                run(&["ip", "-br", "addr"]),
                forwarding,
            )
        })
    };
    let before = state(&world);
    host.block_on(async || {
        let network = Network::setup(config.clone(), &[]).await;
        for slot in 0..3 {
            world
                .attach(
                    &network,
                    slot,
                    EgressPolicy {
                        internet: slot != 1,
                        ..Default::default()
                    },
                )
                .await;
        }
        assert_eq!(
            std::fs::read_to_string("/proc/sys/net/ipv4/conf/up0/forwarding").unwrap(),
            "1\n"
        );
        network.detach(0);
        network.settled().await;
        let mut slots = network.list().await.unwrap();
        slots.sort_unstable();
        assert_eq!(slots, vec![1, 2]);
        drop(network);
        // A new run over the old one's remains; slot 2 died meanwhile.
        let live = [Live {
            slot: 1,
            policy: EgressPolicy {
                internet: false,
                ..Default::default()
            },
        }];
        let network = Network::setup(config, &live).await;
        assert_eq!(network.reconcile(&[1]).await.unwrap(), 1);
        assert_eq!(network.list().await.unwrap(), vec![1]);
        // The slot of a sandbox whose deletion is pending can be used again.
        network.detach(1);
        network
            .attach(
                "again",
                1,
                world.netns("sb2"),
                NetworkMode::Nat,
                EgressPolicy::default(),
            )
            .await
            .unwrap();
        assert_eq!(network.list().await.unwrap(), vec![1]);
        network.teardown().await.unwrap();
    });
    assert_eq!(state(&world), before);
}

#[test]
fn without_nft_only_mode_none_works() {
    let mut world = World::new();
    world.add("sb0");
    let mut config = world.config();
    config.nft = Some("/nonexistent/nft".into());
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        let attach = async |mode| {
            network
                .attach("x", 0, world.netns("sb0"), mode, EgressPolicy::default())
                .await
        };
        let error = attach(NetworkMode::Nat).await.unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("nftables"), "{source}");
        assert_eq!(attach(NetworkMode::None).await.unwrap(), None);
    });
}

#[test]
fn only_what_is_ours_is_forwarded() {
    let mut world = World::new();
    world.add("lan");
    let (host, lan, inet) = (
        format!("{}-host", world.tag),
        format!("{}-lan", world.tag),
        format!("{}-inet", world.tag),
    );
    run(&[
        "ip", "-n", &host, "link", "add", "lan0", "type", "veth", "peer", "name", "lan1", "netns",
        &lan,
    ]);
    run(&[
        "ip",
        "-n",
        &host,
        "addr",
        "add",
        "198.51.100.1/24",
        "dev",
        "lan0",
    ]);
    run(&["ip", "-n", &host, "link", "set", "lan0", "up"]);
    run(&[
        "ip",
        "-n",
        &lan,
        "addr",
        "add",
        "198.51.100.2/24",
        "dev",
        "lan1",
    ]);
    run(&["ip", "-n", &lan, "link", "set", "lan1", "up"]);
    run(&[
        "ip",
        "-n",
        &lan,
        "route",
        "add",
        "default",
        "via",
        "198.51.100.1",
    ]);
    run(&[
        "ip",
        "-n",
        &inet,
        "route",
        "add",
        "198.51.100.2/32",
        "via",
        "192.0.2.2",
    ]);
    world.udp_server("lan", "198.51.100.2:9000");
    world.udp_server("inet", "203.0.113.10:9000");
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        assert!(
            network.unavailable().is_none(),
            "{:?}",
            network.unavailable()
        );
        let heard = |patience: u64| {
            let (netns, patience) = (world.netns("lan"), Duration::from_millis(patience));
            let listener = std::thread::spawn(move || {
                enter(&netns);
                let socket = std::net::UdpSocket::bind("198.51.100.2:9001").unwrap();
                socket.set_read_timeout(Some(patience)).unwrap();
                socket
            });
            let socket = listener.join().unwrap();
            world.run_in("inet", || {
                let from = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
                from.send_to(b"x", "198.51.100.2:9001").unwrap();
            });
            socket.recv(&mut [0; 8]).is_ok()
        };
        let asks = |patience| {
            let ask = || udp_within("203.0.113.10:9000", Duration::from_millis(patience)).is_ok();
            world.run_in("lan", ask)
        };
        assert_eq!(
            std::fs::read_to_string("/proc/sys/net/ipv4/conf/up0/forwarding").unwrap(),
            "1\n"
        );
        assert!(!heard(500) && !asks(500), "the host is no router");
        // Somebody makes it one: from then on we are out of the way.
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        network.reconcile(&[]).await.unwrap();
        assert!(heard(5000) && asks(5000));
        network.teardown().await.unwrap();
        assert!(asks(5000), "and leave it so");
    });
}

#[test]
fn many_are_attached() {
    const ROUNDS: u32 = 200;
    let mut world = World::new();
    let config = world.config();
    let names: Vec<_> = (0..ROUNDS).map(|n| format!("q{n}")).collect();
    for name in &names {
        world.add(name);
    }
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        let mut times = Vec::new();
        for (slot, name) in (0..).zip(&names) {
            let netns = world.netns(name);
            let started = Instant::now();
            network
                .attach(name, slot, netns, NetworkMode::Nat, EgressPolicy::default())
                .await
                .unwrap();
            times.push(started.elapsed());
        }
        times.sort_unstable();
        let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("attach: p50 {p50:?} p99 {p99:?}");
        let mut updates = Vec::new();
        for round in 0..40 {
            let policy = EgressPolicy {
                internet: round % 2 == 1,
                ..Default::default()
            };
            let started = Instant::now();
            network.update(0, policy).await.unwrap();
            updates.push(started.elapsed());
        }
        updates.sort_unstable();
        println!("update: p50 {:?} max {:?}", updates[20], updates[39]);
        network.teardown().await.unwrap();
    });
}

#[test]
fn flushed_rules_are_put_back() {
    let mut world = World::new();
    world.tcp_server("inet", "203.0.113.10:8000");
    world.tcp_server("host", "192.0.2.2:7000");
    let config = world.config();
    world.host().block_on(async || {
        let network = Network::setup(config, &[]).await;
        world.attach(&network, 0, EgressPolicy::default()).await;
        world
            .attach(
                &network,
                1,
                EgressPolicy {
                    internet: false,
                    ..Default::default()
                },
            )
            .await;
        let before = run(&["nft", "list", "ruleset"]);
        run(&["nft", "flush", "ruleset"]);
        network.reconcile(&[0, 1]).await.unwrap();
        assert_eq!(run(&["nft", "list", "ruleset"]), before);
        world.run_in("sb0", || tcp("203.0.113.10:8000")).unwrap();
        world.run_in("sb0", || tcp("192.0.2.2:7000")).unwrap_err();
        world
            .run_in("sb1", || tcp("203.0.113.10:8000"))
            .unwrap_err();
        let netns = world.netns("sb0");
        let again = network
            .attach("x", 0, netns, NetworkMode::Nat, EgressPolicy::default())
            .await;
        assert!(matches!(again, Err(AttachError::SlotInUse(0))), "{again:?}");
        network.teardown().await.unwrap();
    });
}
