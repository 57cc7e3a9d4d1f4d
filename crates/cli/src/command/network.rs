//! Network rules from flags and files.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use woodfrog_wire::native::network::{EgressProxy, Network, ProxyTls};
use woodfrog_wire::native::sandbox::Sandbox;

use super::{Outcome, Usage};
use crate::args::{NetworkArgs, Target};
use crate::client::Client;
use crate::output;

/// More is in no file of rules that a server would take.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Replaces a sandbox's rules about what it reaches; those about who reaches it stay.
pub(super) async fn replace(id: &str, args: &NetworkArgs, target: &Target) -> Outcome {
    let client = Client::new(target)?;
    let wanted = network(args)?;
    let now: Sandbox = client.json(client.get(&["sandboxes", id])).await?;
    let wanted = Network {
        allow_public_traffic: now.network.allow_public_traffic,
        mask_request_host: now.network.mask_request_host,
        https_ports: now.network.https_ports,
        ..wanted
    };
    let route = client.route(&["sandboxes", id, "network"]);
    let request = client.request(reqwest::Method::PUT, route);
    client.send(request.json(&wanted)).await?;
    if target.json {
        let now: Sandbox = client.json(client.get(&["sandboxes", id])).await?;
        output::json(&now.network)?;
    }
    Ok(0)
}

/// The rules that flags ask for.
pub(super) fn network(args: &NetworkArgs) -> anyhow::Result<Network> {
    let header_rules = match &args.header_rules {
        None => BTreeMap::new(),
        Some(file) => header_rules(&read(file)?, file)?,
    };
    Ok(Network {
        internet: !args.no_internet,
        allow_out: args.allow_out.clone(),
        deny_out: args.deny_out.clone(),
        dns_servers: args.dns_servers.clone(),
        header_rules,
        egress_proxy: proxy(args)?,
        ..Network::default()
    })
}

fn proxy(args: &NetworkArgs) -> anyhow::Result<Option<EgressProxy>> {
    let Some(address) = args.egress_proxy.clone() else {
        return Ok(None);
    };
    let (username, password) = match &args.egress_proxy_login {
        None => (None, None),
        Some(file) => login(&read(file)?, file)?,
    };
    let ca_cert = args.egress_proxy_ca.as_deref().map(read).transpose()?;
    let tls = args.egress_proxy_tls.then(|| ProxyTls {
        server_name: args.egress_proxy_name.clone(),
        ca_cert,
    });
    Ok(Some(EgressProxy {
        address,
        username,
        password,
        tls,
    }))
}

type Rules = BTreeMap<String, BTreeMap<String, String>>;

/// What is wrong is said without what is in the file.
fn header_rules(text: &str, file: &Path) -> Result<Rules, Usage> {
    serde_json::from_str(text).map_err(|error| {
        Usage(format!(
            "{} is not like {{\"HOST\": {{\"HEADER\": \"VALUE\"}}}} at line {}, column {}",
            file.display(),
            error.line(),
            error.column()
        ))
    })
}

fn login(text: &str, file: &Path) -> Result<(Option<String>, Option<String>), Usage> {
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() || line.contains('\n') {
        let text = format!("{} is not one line, USER:PASSWORD", file.display());
        return Err(Usage(text));
    }
    Ok(match line.split_once(':') {
        None => (Some(line.to_owned()), None),
        Some((user, password)) => (Some(user.to_owned()), Some(password.to_owned())),
    })
}

/// A file, or standard input, as text.
fn read(file: &Path) -> anyhow::Result<String> {
    let shown = || format!("read {}", file.display());
    let mut text = String::new();
    let from: Box<dyn std::io::Read> = match file.as_os_str() == "-" {
        true => Box::new(std::io::stdin()),
        false => Box::new(std::fs::File::open(file).with_context(shown)?),
    };
    let read = from.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    let read = read.with_context(shown)?;
    if read as u64 > FILE_BYTES_MAX {
        let text = format!("{} has more than {FILE_BYTES_MAX} bytes", file.display());
        return Err(Usage(text).into());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(dir: &Path, name: &str, text: &str) -> std::path::PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn rules_and_the_login_come_from_files() {
        let dir = tempfile::tempdir().unwrap();
        let rules = r#"{"api.example.com": {"Authorization": "Bearer secret-1"}}"#;
        let args = NetworkArgs {
            deny_out: vec!["0.0.0.0/0".to_owned()],
            header_rules: Some(file(dir.path(), "rules", rules)),
            egress_proxy: Some("proxy:1080".to_owned()),
            egress_proxy_login: Some(file(dir.path(), "login", "ann:pass:word\n")),
            egress_proxy_tls: true,
            egress_proxy_ca: Some(file(dir.path(), "ca", "PEM")),
            ..NetworkArgs::default()
        };
        let network = network(&args).unwrap();
        assert!(network.internet);
        assert_eq!(network.deny_out, ["0.0.0.0/0"]);
        let headers = &network.header_rules["api.example.com"];
        assert_eq!(headers["Authorization"], "Bearer secret-1");
        let expected = EgressProxy {
            address: "proxy:1080".to_owned(),
            username: Some("ann".to_owned()),
            password: Some("pass:word".to_owned()),
            tls: Some(ProxyTls {
                server_name: None,
                ca_cert: Some("PEM".to_owned()),
            }),
        };
        assert_eq!(network.egress_proxy, Some(expected));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            r#"{"a.de": "secret-1"}"#,
            r#"{"a.de": {"x": "secret-1"#,
            r#"["secret-1"]"#,
        ] {
            let args = NetworkArgs {
                header_rules: Some(file(dir.path(), "rules", text)),
                ..NetworkArgs::default()
            };
            let said = format!("{:?}", network(&args).unwrap_err());
            assert!(said.contains("HEADER") && said.contains("line 1"), "{said}");
            assert!(!said.contains("secret-1"), "{said}");
        }
        for text in ["", "\n", "ann:secret-1\nmore\n"] {
            let args = NetworkArgs {
                egress_proxy: Some("p:1".to_owned()),
                egress_proxy_login: Some(file(dir.path(), "login", text)),
                ..NetworkArgs::default()
            };
            let said = format!("{:?}", network(&args).unwrap_err());
            assert!(
                said.contains("USER:PASSWORD") && !said.contains("secret-1"),
                "{said}"
            );
        }
        let long = " ".repeat(1 + (1 << 20));
        let args = NetworkArgs {
            header_rules: Some(file(dir.path(), "rules", &long)),
            ..NetworkArgs::default()
        };
        let said = network(&args).unwrap_err().to_string();
        assert!(said.contains("more than"), "{said}");
    }
}
