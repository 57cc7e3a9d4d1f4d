//! Values of network rules that are kept sealed: headers' and proxies' passwords. Where a header names
//! a secret, the name is kept, and its value looked up whenever the driver is told of the rules.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::task::JoinSet;
use woodfrog_core::{egress, seal};
use woodfrog_types::network::{Hidden, NetworkSpec};
use woodfrog_types::secret::{Sealed, Secret};
use woodfrog_types::{Code, Fault, SandboxId, WorkspaceId};

use crate::engine::Engine;
use crate::inner::Inner;
use crate::sandbox::launch;
use crate::sandbox::live::Command;
use crate::secrets;

/// How long whoever changes a secret waits for the sandboxes that use it.
const REFILL_WAIT: Duration = Duration::from_secs(10);

impl Engine {
    /// Checks that headers name secrets that there are (`${e2b.secrets.NAME}`), and that their
    /// values can be in headers. The rules keep the names: what is filled in is looked up when the
    /// rules are given to the driver.
    pub(super) async fn check_secrets(
        &self,
        workspace: &WorkspaceId,
        network: &NetworkSpec,
    ) -> Result<(), Fault> {
        let mut network = network.clone();
        for (host, headers) in &mut network.header_rules {
            for (name, value) in headers {
                let Hidden::Plain(text) = value else {
                    continue;
                };
                let values = match values(&self.inner, workspace, text).await? {
                    Found::All(values) => values,
                    Found::Missing(secret) => return Err(no_secret(host, name, &secret)),
                };
                *text = egress::filled(text, &values);
            }
        }
        egress::validate(&network)
    }

    /// Has the sandboxes of a workspace in memory look up a secret again that was changed or
    /// removed. Those that sleep do when they wake.
    pub(crate) async fn refill(&self, secret: &Secret) -> Result<(), Fault> {
        let mut asked = JoinSet::new();
        for live in self.inner.registry.all() {
            let record = live.record();
            if record.workspace != secret.workspace || !launch::has_rules(&record.network) {
                continue;
            }
            match opened(&self.inner, &record.id, record.network.clone()) {
                Ok(rules) if !names(&rules, secret) => continue,
                // One whose rules cannot be read is asked: it tells why it cannot follow.
                Ok(_) | Err(_) => {}
            }
            asked.spawn(async move {
                let answer = live.ask(|reply| Command::Refill { reply }).await;
                (live.id.clone(), answer)
            });
        }
        // One that is being saved or brought back takes its time; it looks up when it is through,
        // whether somebody waits or not.
        let mut late = Vec::new();
        let ended = tokio::time::timeout(REFILL_WAIT, async {
            while let Some(one) = asked.join_next().await {
                if let Ok((id, Some(Err(fault)))) = one {
                    tracing::error!(sandbox = %id, error = &fault as &dyn std::error::Error, "a sandbox still sends a secret of before");
                    late.push(id.to_string());
                }
            }
        });
        let in_time = ended.await.is_ok();
        if !in_time {
            tracing::info!(
                sandboxes = asked.len(),
                "sandboxes that are busy look a changed secret up when they are through"
            );
        }
        asked.detach_all();
        if late.is_empty() {
            return Ok(());
        }
        let text = format!(
            "the secret is changed, but sandboxes still send its value of before: {}",
            late.join(", ")
        );
        Err(Fault::new(Code::Unavailable, text))
    }
}

/// Values of the secrets that a text names.
enum Found {
    All(BTreeMap<String, String>),
    /// There is none of this name.
    Missing(String),
}

async fn values(inner: &Inner, workspace: &WorkspaceId, text: &str) -> Result<Found, Fault> {
    let mut values = BTreeMap::new();
    for secret in egress::secrets_in(text) {
        if values.contains_key(secret) {
            continue;
        }
        match secrets::value(inner, workspace, secret).await? {
            Some(value) => values.insert(secret.to_owned(), value),
            None => return Ok(Found::Missing(secret.to_owned())),
        };
    }
    Ok(Found::All(values))
}

/// The same rules, which are open, with the values that secrets have now. A header that names one
/// that is gone, or whose value no header can have, is sent empty: what programs set themselves
/// does not take its place.
pub(crate) async fn filled(
    inner: &Inner,
    workspace: &WorkspaceId,
    mut network: NetworkSpec,
) -> Result<NetworkSpec, Fault> {
    for (host, headers) in &mut network.header_rules {
        for (name, value) in headers {
            let Hidden::Plain(text) = value else {
                continue;
            };
            if egress::secrets_in(text).is_empty() {
                continue;
            }
            *text = match values(inner, workspace, text).await? {
                Found::All(values) => egress::filled(text, &values),
                Found::Missing(_) => String::new(),
            };
            if !egress::is_header_value(text) {
                text.clear();
            }
            if text.is_empty() {
                tracing::warn!(
                    host,
                    header = name,
                    "a header is sent empty: its secret is gone, or cannot be in a header"
                );
            }
        }
    }
    Ok(network)
}

/// Whether rules, which are open, name this secret.
fn names(network: &NetworkSpec, secret: &Secret) -> bool {
    let named = |value: &Hidden| match value {
        Hidden::Plain(text) => egress::secrets_in(text)
            .iter()
            .any(|name| *name == secret.id.as_str() || name.to_lowercase() == secret.name),
        Hidden::Sealed(_) => false,
    };
    let mut headers = network.header_rules.values().flat_map(BTreeMap::values);
    headers.any(named)
}

fn no_secret(host: &str, header: &str, secret: &str) -> Fault {
    let shown: String = secret.chars().take(128).collect();
    let field = format!("network.header_rules.{host}.{header}");
    Fault::invalid(field, format!("secret '{shown}' not found"))
}

/// The same rules with every value sealed for a sandbox. What is sealed already stays as it is.
pub(crate) fn sealed(
    inner: &Inner,
    owner: &SandboxId,
    network: NetworkSpec,
) -> Result<NetworkSpec, Fault> {
    each(network, |value| match value {
        Hidden::Plain(text) => {
            let mut nonce = [0; seal::NONCE_BYTES];
            getrandom::fill(&mut nonce).map_err(|error| Fault::internal(error.to_string()))?;
            let bytes = seal::seal(&inner.secret, owner.as_str(), nonce, text.as_bytes());
            Ok(Hidden::Sealed(Sealed(bytes)))
        }
        Hidden::Sealed(_) => Ok(value),
    })
}

/// The same rules with every value as it was given, to be used and never shown.
pub(crate) fn opened(
    inner: &Inner,
    owner: &SandboxId,
    network: NetworkSpec,
) -> Result<NetworkSpec, Fault> {
    each(network, |value| match &value {
        Hidden::Plain(_) => Ok(value),
        Hidden::Sealed(Sealed(bytes)) => seal::open(&inner.secret, owner.as_str(), bytes)
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(Hidden::Plain)
            .ok_or_else(|| Fault::internal("a sealed value of network rules cannot be opened")),
    })
}

fn each(
    mut network: NetworkSpec,
    change: impl Fn(Hidden) -> Result<Hidden, Fault>,
) -> Result<NetworkSpec, Fault> {
    let headers = network
        .header_rules
        .values_mut()
        .flat_map(|set| set.values_mut());
    let password = network
        .egress_proxy
        .as_mut()
        .and_then(|proxy| proxy.password.as_mut());
    for value in headers.chain(password) {
        *value = change(value.clone())?;
    }
    Ok(network)
}
