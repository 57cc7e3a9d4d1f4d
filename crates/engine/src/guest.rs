//! What the engine itself asks of a guest: defaults at the start, commands of templates.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use woodfrog_guest_client::proto::{Configure, Trust};
use woodfrog_types::network::{FORWARDER, NetworkSpec};
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::template::BuiltImage;
use woodfrog_types::{Code, Fault, SandboxId};

pub(crate) mod call;

pub(crate) use call::{client, guest_fault, run, start};

use crate::inner::Inner;
use crate::sandbox::launch;

/// Between two tries of a ready command.
const READY_PAUSE: Duration = Duration::from_millis(100);
/// How long one try of a ready command may take.
const READY_TRY: Duration = Duration::from_secs(10);

/// A command of a template: through a login shell, as E2B runs them.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    pub(crate) line: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) user: Option<String>,
    pub(crate) cwd: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) timeout: Option<Duration>,
}

impl Command {
    pub(crate) fn new(line: &str) -> Self {
        Self {
            line: line.to_owned(),
            env: BTreeMap::new(),
            user: None,
            cwd: None,
            tag: None,
            timeout: None,
        }
    }
}

/// The environment that every process of the sandbox gets: the image's, what E2B programs look
/// for, and what the request set, the later winning.
fn environment(sandbox: &Sandbox, image: &BuiltImage) -> BTreeMap<String, String> {
    let mut env = image.env.clone();
    for (name, value) in [
        ("E2B_SANDBOX", "true"),
        ("E2B_SANDBOX_ID", sandbox.id.as_str()),
        ("E2B_TEMPLATE_ID", sandbox.template.as_str()),
        ("E2B_TEAM_ID", sandbox.workspace.as_str()),
    ] {
        env.insert(name.to_owned(), value.to_owned());
    }
    if launch::has_rules(&sandbox.network) {
        for (name, value) in TRUSTING {
            env.entry(name.to_owned())
                .or_insert_with(|| value.to_owned());
        }
    }
    env.extend(sandbox.env.clone());
    env
}

/// For programs that bring their own certificates and look at no others unless told.
const TRUSTING: [(&str, &str); 3] = [
    ("NODE_EXTRA_CA_CERTS", Trust::FILE),
    ("REQUESTS_CA_BUNDLE", Trust::BUNDLE),
    ("SSL_CERT_FILE", Trust::BUNDLE),
];

/// Whom the sandbox is to trust: the server's authority while it changes requests.
fn trust(inner: &Inner, network: &NetworkSpec) -> Option<Trust> {
    let authority = inner.options.egress_authority.as_ref()?;
    let trusted = launch::has_rules(network);
    Some(Trust {
        certificate: trusted.then(|| authority.certificate.clone()),
        link: authority.link.clone(),
    })
}

/// Tells a running sandbox's guest whom to trust under new rules.
pub(crate) async fn retrust(
    inner: &Inner,
    id: &SandboxId,
    network: &NetworkSpec,
) -> Result<(), Fault> {
    let client = client(inner, id).with_deadline(inner.options.guest_timeout);
    let now = client.configure(Configure::default()).await;
    let mut env = now.map_err(guest_fault)?.env;
    for (name, value) in TRUSTING {
        if launch::has_rules(network) {
            env.entry(name.to_owned())
                .or_insert_with(|| value.to_owned());
        } else if env.get(name).is_some_and(|now| now == value) {
            env.remove(name);
        }
    }
    let change = Configure {
        env: Some(env),
        trust: trust(inner, network),
        files: BTreeMap::from([(RESOLVER.to_owned(), resolver(network))]),
        ..Configure::default()
    };
    call::configure(inner, id, change).await
}

/// Where programs look for name servers.
const RESOLVER: &str = "/etc/resolv.conf";

/// The name servers of the rules, or the server's own forwarder, as drivers seed it.
fn resolver(network: &NetworkSpec) -> String {
    let own = [IpAddr::V4(FORWARDER)];
    let servers: &[IpAddr] = match network.dns_servers.as_slice() {
        [] => &own,
        named => named,
    };
    servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect()
}

/// A file that is another one after each start, wake and copy: programs that keep a state that must
/// not be had twice (random numbers, names that they gave) can watch it. Hypervisors have the same
/// as the generation id of a machine.
const GENERATION: &str = "/run/woodfrog/generation";

fn generation() -> Result<String, Fault> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| Fault::internal(error.to_string()))?;
    Ok(hex::encode(random))
}

/// What programs look for that do not get our environment, where E2B has it.
fn marks(env: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let names = ["E2B_SANDBOX", "E2B_SANDBOX_ID", "E2B_TEMPLATE_ID"];
    let known = names.iter().filter_map(|name| env.get_key_value(*name));
    known
        .map(|(name, value)| (format!("/run/e2b/.{name}"), value.clone()))
        .collect()
}

/// Tells a sandbox's guest its defaults; returns when it has them. Safe to repeat.
pub(crate) async fn configure(
    inner: &Inner,
    sandbox: &Sandbox,
    image: &BuiltImage,
) -> Result<(), Fault> {
    let env = environment(sandbox, image);
    let trust = trust(inner, &sandbox.network);
    let mut files = marks(&env);
    if !sandbox.network.dns_servers.is_empty() {
        files.insert(RESOLVER.to_owned(), resolver(&sandbox.network));
    }
    configure_trusting(inner, &sandbox.id, image, (env, files), trust).await
}

/// As [`configure`], with this environment.
pub(crate) async fn configure_with(
    inner: &Inner,
    id: &SandboxId,
    image: &BuiltImage,
    env: BTreeMap<String, String>,
) -> Result<(), Fault> {
    let files = marks(&env);
    configure_trusting(inner, id, image, (env, files), None).await
}

async fn configure_trusting(
    inner: &Inner,
    id: &SandboxId,
    image: &BuiltImage,
    (env, mut files): (BTreeMap<String, String>, BTreeMap<String, String>),
    trust: Option<Trust>,
) -> Result<(), Fault> {
    files.insert(GENERATION.to_owned(), generation()?);
    let configure = Configure {
        files,
        default_user: Some(image.user.clone()),
        default_workdir: image.workdir.clone(),
        env: Some(env),
        // A copy has its name from the driver: nobody inside may change it.
        hostname: None,
        trust,
    };
    call::configure(inner, id, configure).await
}

/// Starts the image's start command in the background and waits until its ready command succeeds.
pub(crate) async fn start_services(
    inner: &Inner,
    id: &SandboxId,
    image: &BuiltImage,
) -> Result<(), Fault> {
    if let Some(line) = &image.start_cmd {
        let mut command = Command::new(line);
        command.tag = Some("start_cmd".to_owned());
        start(inner, id, &command).await?;
    }
    let Some(line) = &image.ready_cmd else {
        return Ok(());
    };
    let mut command = Command::new(line);
    command.timeout = Some(READY_TRY);
    let ready = async {
        loop {
            let end = run(inner, id, &command, |_| ()).await?;
            if end.succeeded() {
                return Ok(());
            }
            tokio::time::sleep(READY_PAUSE).await;
        }
    };
    match tokio::time::timeout(inner.options.ready_timeout, ready).await {
        Ok(result) => result,
        Err(_) => Err(Fault::new(
            Code::CreateFailed,
            format!(
                "the template's ready command did not succeed within {} s",
                inner.options.ready_timeout.as_secs()
            ),
        )),
    }
}
