use proptest::prelude::*;
use woodfrog_types::secret::Sealed;
use woodfrog_types::webhook::Webhook;
use woodfrog_types::{WebhookId, WorkspaceId};

use super::*;

fn at(secs: i64) -> Timestamp {
    Timestamp::from_millis(secs * 1_000)
}

/// The example of the Standard Webhooks specification's libraries.
#[test]
fn signatures_are_those_of_standard_webhooks() {
    let secret = STANDARD
        .decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .expect("base64");
    let body = br#"{"test": 2432232314}"#;
    let signature = sign(
        &secret,
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        at(1_614_265_330),
        body,
    );
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[test]
fn kinds_are_chosen_by_name_or_group() {
    let kinds = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let wants = |names: &[&str], kind: &str| {
        Webhook {
            id: WebhookId::generate(),
            workspace: WorkspaceId::default_workspace(),
            url: String::new(),
            description: String::new(),
            events: kinds(names),
            secret: Sealed(Vec::new()),
            state: WebhookState::Enabled {
                failing_since: None,
            },
            generation: 1,
            created_at: at(0),
        }
        .wants(kind)
    };
    assert!(wants(&[], "run.failed"));
    assert!(wants(&["run.*"], "run.failed"));
    assert!(!wants(&["run.*"], "sandbox.created"));
    assert!(wants(&["sandbox.created", "*"], "budget.threshold_reached"));
    assert!(!wants(&["run.failed"], "run.succeeded"));
    validate_kinds(&kinds(&["run.*", "*", "sandbox.created"])).expect("known");
    for bad in ["run", "runs.*", "r*", "sandbox.sneezed", ""] {
        assert!(validate_kinds(&kinds(&[bad])).is_err(), "{bad}");
    }
}

#[test]
fn a_delivery_is_tried_ten_times_and_then_failed() {
    let mut state = WebhookState::Enabled {
        failing_since: None,
    };
    let mut now = at(0);
    let mut tries = 0;
    loop {
        tries += 1;
        let outcome = tried(state, tries, false, now);
        state = outcome.webhook;
        match outcome.delivery {
            DeliveryState::Pending { due } => {
                assert!(due > now);
                now = due;
            }
            other => {
                assert_eq!(other, DeliveryState::Failed { at: now });
                break;
            }
        }
    }
    assert_eq!(tries, 10);
    let failing_since = Some(at(0));
    assert_eq!(state, WebhookState::Enabled { failing_since });
}

#[test]
fn long_failure_disables_and_success_forgives() {
    let failing = WebhookState::Enabled {
        failing_since: Some(at(0)),
    };
    let late = at(0).plus(FAILING_MAX);
    let outcome = tried(failing, 1, false, late);
    assert_eq!(outcome.webhook, WebhookState::Disabled { since: late });
    assert_eq!(outcome.delivery, DeliveryState::Failed { at: late });
    let outcome = tried(failing, 9, true, late);
    let failing_since = None;
    assert_eq!(outcome.webhook, WebhookState::Enabled { failing_since });
    assert_eq!(outcome.delivery, DeliveryState::Delivered { at: late });
}

#[test]
fn only_public_addresses_are_public() {
    for public in [
        "1.1.1.1",
        "8.8.8.8",
        "2606:4700::1111",
        "64:ff9b::808:808",
        "::ffff:8.8.8.8",
    ] {
        assert!(is_public(public.parse().expect("an address")), "{public}");
    }
    for other in [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "192.0.0.8",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "fc00::1",
        "fd12::1",
        "fe80::1",
        "ff02::1",
        "2001:db8::1",
        "2001::1",
    ] {
        assert!(!is_public(other.parse().expect("an address")), "{other}");
    }
}

proptest! {
    /// What a v6 address embeds is judged as what it embeds.
    #[test]
    fn mapped_addresses_are_judged_as_what_they_are(bits: u32) {
        let inner = Ipv4Addr::from(bits);
        let mapped = IpAddr::V6(inner.to_ipv6_mapped());
        prop_assert_eq!(is_public(mapped), is_public(IpAddr::V4(inner)));
    }

    #[test]
    fn another_secret_id_time_or_body_has_another_signature(byte in 0_usize..4) {
        let one = sign(&[1; 32], "a", at(5), b"x");
        let (secret, id, time, body) = match byte {
            0 => ([2; 32], "a", at(5), &b"x"[..]),
            1 => ([1; 32], "b", at(5), &b"x"[..]),
            2 => ([1; 32], "a", at(6), &b"x"[..]),
            _ => ([1; 32], "a", at(5), &b"y"[..]),
        };
        prop_assert_ne!(one, sign(&secret, id, time, body));
    }
}
