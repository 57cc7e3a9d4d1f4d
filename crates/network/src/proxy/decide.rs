//! What becomes of a connection: pure.

use std::net::SocketAddrV4;

use super::Peek;
use crate::domain;
use crate::policy::EgressPolicy;

/// Where a connection is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Where the client wanted to go.
    Address(SocketAddrV4),
    /// To a host; where the client wanted to go does not matter.
    Name {
        host: String,
        port: u16,
        judged: Judged,
    },
}

/// What says whether a host may be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    /// Its name is allowed.
    ByName,
    /// Its addresses must be.
    ByAddress,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Refuse,
    /// Bytes go through as they are.
    Pass(Target),
    /// Headers are set on its requests.
    Change(Target),
}

/// Decides by the first bytes, if they name a host, and by where the client wanted to go.
///
/// A host with a rule is looked up and never taken from the client: its headers go to nobody who
/// merely is called like it.
pub(super) fn decide(
    policy: &EgressPolicy,
    peek: &Peek,
    port: u16,
    wanted: Option<SocketAddrV4>,
) -> Verdict {
    let name = match peek {
        Peek::Host(host) => domain::normalise(host),
        Peek::Incomplete | Peek::Nameless => None,
    };
    if let Some(host) = name {
        let judged = match policy.allows_name(&host) {
            true => Judged::ByName,
            false => Judged::ByAddress,
        };
        let has_rule = policy.rule_for(&host).is_some();
        let target = Target::Name { host, port, judged };
        match (has_rule, judged) {
            (true, _) => return Verdict::Change(target),
            (false, Judged::ByName) => return Verdict::Pass(target),
            (false, Judged::ByAddress) => {}
        }
    }
    match wanted {
        Some(address) if policy.permits_address(*address.ip()) => {
            Verdict::Pass(Target::Address(address))
        }
        Some(_) | None => Verdict::Refuse,
    }
}

/// Whether a connection that was made under one policy may go on under another.
pub(super) fn goes_on(before: (&EgressPolicy, &Verdict), after: (&EgressPolicy, &Verdict)) -> bool {
    let (old, new) = (before.0, after.0);
    let same_ranges =
        || (old.internet, &old.allow, &old.deny) == (new.internet, &new.allow, &new.deny);
    let by_address = matches!(
        after.1,
        Verdict::Change(Target::Name {
            judged: Judged::ByAddress,
            ..
        })
    );
    before.1 == after.1
        && *after.1 != Verdict::Refuse
        && old.route == new.route
        // Which of the host's addresses it is connected to is not known here.
        && (!by_address || same_ranges())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::AllowRule;
    use crate::route::{Route, SocksProxy};
    use crate::rules::HeaderRule;

    fn only(domain: &str) -> EgressPolicy {
        EgressPolicy {
            internet: false,
            allow: vec![AllowRule::Domain(domain.parse().unwrap())],
            ..EgressPolicy::default()
        }
    }

    fn ask(policy: &EgressPolicy, host: &str) -> Verdict {
        let wanted = "203.0.113.9:443".parse().ok();
        decide(policy, &Peek::Host(host.to_owned()), 443, wanted)
    }

    fn name(host: &str, judged: Judged) -> Target {
        let host = host.to_owned();
        let port = 443;
        Target::Name { host, port, judged }
    }

    #[test]
    fn names_decide_where_everything_else_is_denied() {
        let policy = only("*.example.com");
        let expected = Verdict::Pass(name("a.example.com", Judged::ByName));
        assert_eq!(ask(&policy, "A.example.com"), expected);
        assert_eq!(ask(&policy, "example.com"), Verdict::Refuse);
        assert_eq!(ask(&policy, "127.0.0.1"), Verdict::Refuse);
        assert_eq!(decide(&policy, &Peek::Nameless, 80, None), Verdict::Refuse);
    }

    #[test]
    fn hosts_with_rules_are_changed_and_the_rest_passes() {
        let mut policy = EgressPolicy {
            rules: vec![HeaderRule::new("api.example.com", [("x", "y")]).unwrap()],
            ..EgressPolicy::default()
        };
        let changed = Verdict::Change(name("api.example.com", Judged::ByAddress));
        assert_eq!(ask(&policy, "api.example.com."), changed);
        let wanted: SocketAddrV4 = "203.0.113.9:443".parse().unwrap();
        let passed = Verdict::Pass(Target::Address(wanted));
        assert_eq!(ask(&policy, "other.example.com"), passed);
        assert_eq!(decide(&policy, &Peek::Nameless, 443, Some(wanted)), passed);
        policy.deny = vec!["203.0.113.0/24".parse().unwrap()];
        assert_eq!(ask(&policy, "other.example.com"), Verdict::Refuse);
        // Its own addresses are looked at when it is connected to.
        assert_eq!(ask(&policy, "api.example.com"), changed);
    }

    #[test]
    fn a_connection_goes_on_while_nothing_changes_for_it() {
        let rule = |value| vec![HeaderRule::new("api.example.com", [("x", value)]).unwrap()];
        let old = EgressPolicy {
            rules: rule("1"),
            ..EgressPolicy::default()
        };
        let still = |new: &EgressPolicy, host: &str| {
            let (before, after) = (ask(&old, host), ask(new, host));
            goes_on((&old, &before), (new, &after))
        };
        let other_value = EgressPolicy {
            rules: rule("2"),
            ..old.clone()
        };
        assert!(still(&other_value, "api.example.com"));
        let no_rule = EgressPolicy::default();
        assert!(!still(&no_rule, "api.example.com"));
        assert!(still(&no_rule, "b.example.com"));
        let proxy = SocksProxy::new("p:1", None, None).unwrap();
        let tunnelled = EgressPolicy {
            route: Route::Proxy(Arc::new(proxy)),
            ..old.clone()
        };
        assert!(!still(&tunnelled, "b.example.com"));
        let denied = EgressPolicy {
            deny: vec!["198.51.100.0/24".parse().unwrap()],
            ..old.clone()
        };
        assert!(!still(&denied, "api.example.com") && still(&denied, "b.example.com"));
    }
}
