//! Webhooks: how deliveries are signed, when they are tried again, and which
//! addresses are allowed. Headers and signatures are those of Standard Webhooks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use woodfrog_types::webhook::{DeliveryState, WebhookState};
use woodfrog_types::{Fault, Timestamp};

/// Bytes of a secret.
pub const SECRET_BYTES: usize = 32;
/// Webhooks of one workspace.
pub const WEBHOOKS_MAX: usize = 50;
/// Kinds of events that one webhook names.
pub const KINDS_MAX: usize = 50;
/// Characters of a URL.
pub const URL_CHARS_MAX: usize = 2_000;
/// Characters of a description.
pub const DESCRIPTION_CHARS_MAX: usize = 200;
/// An address that fails for so long, without one success, is told nothing any more.
pub const FAILING_MAX: Duration = Duration::from_secs(5 * 24 * 3_600);

/// Between one try and the next; after the last one a delivery has failed.
const BACK_OFF: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(60),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 3_600),
    Duration::from_secs(5 * 3_600),
    Duration::from_secs(10 * 3_600),
    Duration::from_secs(14 * 3_600),
    Duration::from_secs(24 * 3_600),
];
const SECRET_PREFIX: &str = "whsec_";

/// Every kind of event, as documented.
pub const KINDS: &[&str] = &[
    "run.queued",
    "run.started",
    "run.held",
    "run.continued",
    "run.succeeded",
    "run.failed",
    "run.canceled",
    "session.created",
    "session.ended",
    "sandbox.created",
    "sandbox.paused",
    "sandbox.hibernated",
    "sandbox.archived",
    "sandbox.woken",
    "sandbox.deleted",
    "sandbox.expired",
    "sandbox.exited",
    "sandbox.lost",
    "budget.threshold_reached",
];

/// A secret as people see it: `whsec_` and base64.
pub fn show_secret(secret: &[u8]) -> String {
    format!("{SECRET_PREFIX}{}", STANDARD.encode(secret))
}

/// The signature of one try: `v1,` and base64.
pub fn sign(secret: &[u8], id: &str, at: Timestamp, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("any length will do");
    mac.update(format!("{id}.{}.", at.as_secs()).as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// Refuses kinds that nothing is ever of.
pub fn validate_kinds(kinds: &[String]) -> Result<(), Fault> {
    if kinds.len() > KINDS_MAX {
        let text = format!("events has at most {KINDS_MAX} entries");
        return Err(Fault::invalid("events", text));
    }
    let known = |wanted: &String| match wanted.strip_suffix('*') {
        Some(prefix) => {
            (prefix.is_empty() || prefix.ends_with('.'))
                && KINDS.iter().any(|kind| kind.starts_with(prefix))
        }
        None => KINDS.contains(&wanted.as_str()),
    };
    match kinds.iter().find(|kind| !known(kind)) {
        None => Ok(()),
        Some(unknown) => {
            let shown: String = unknown.chars().take(64).collect();
            let text = format!(
                "there are no events `{shown}`; there are: {}",
                KINDS.join(", ")
            );
            Err(Fault::invalid("events", text))
        }
    }
}

/// What became of a try, and of the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub delivery: DeliveryState,
    pub webhook: WebhookState,
}

/// After a try at `now`, the `attempts`th. A redirect is a failure: nobody is followed.
pub fn tried(webhook: WebhookState, attempts: u32, success: bool, now: Timestamp) -> Outcome {
    let since = match webhook {
        WebhookState::Enabled { failing_since } => failing_since,
        WebhookState::Disabled { .. } => {
            // It was switched off while this one was under way.
            let delivery = if success {
                DeliveryState::Delivered { at: now }
            } else {
                DeliveryState::Failed { at: now }
            };
            return Outcome { delivery, webhook };
        }
    };
    if success {
        return Outcome {
            delivery: DeliveryState::Delivered { at: now },
            webhook: WebhookState::Enabled {
                failing_since: None,
            },
        };
    }
    let since = since.unwrap_or(now);
    let webhook = if now.since(since) >= FAILING_MAX {
        WebhookState::Disabled { since: now }
    } else {
        WebhookState::Enabled {
            failing_since: Some(since),
        }
    };
    let next = usize::try_from(attempts.saturating_sub(1)).ok();
    let delivery = match next.and_then(|next| BACK_OFF.get(next)) {
        Some(wait) if matches!(webhook, WebhookState::Enabled { .. }) => DeliveryState::Pending {
            due: now.plus(*wait),
        },
        Some(_) | None => DeliveryState::Failed { at: now },
    };
    Outcome { delivery, webhook }
}

/// Whether everybody could reach this address: not this machine, not a private network, nothing
/// that is set apart for something else.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let apart = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        // This network, shared addresses, protocol assignments, benchmarks, reserved.
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 240;
    !apart
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    if let Some(inner) = embedded(address) {
        return is_public_v4(inner);
    }
    // Global unicast is 2000::/3, less Teredo and its like, and documentation.
    a & 0xe000 == 0x2000 && !(a == 0x2001 && (b < 0x0200 || b == 0x0db8)) && a != 0x3fff
}

/// The IPv4 address that an IPv6 one stands for.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let ([p, q], [r, s]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(p, q, r, s)
    };
    match (a, b) {
        // 6to4, and NAT64.
        (0x2002, _) => Some(v4(b, c)),
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => Some(v4(g, h)),
        (0, 0) if [c, d, e] == [0; 3] && (f == 0 || f == 0xffff) => Some(v4(g, h)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
