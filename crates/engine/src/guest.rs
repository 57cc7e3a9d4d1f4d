//! What the engine itself asks of a guest: defaults at the start, commands of templates.

use std::collections::BTreeMap;
use std::time::Duration;

use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::template::BuiltImage;
use woodfrog_types::{Code, Fault, SandboxId};

mod call;

pub(crate) use call::{client, guest_fault, run, start};

use crate::inner::Inner;

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
    env.extend(sandbox.env.clone());
    env
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
    configure_with(inner, &sandbox.id, image, env).await
}

/// As [`configure`], with this environment.
pub(crate) async fn configure_with(
    inner: &Inner,
    id: &SandboxId,
    image: &BuiltImage,
    env: BTreeMap<String, String>,
) -> Result<(), Fault> {
    let configure = woodfrog_guest_client::proto::Configure {
        files: marks(&env),
        default_user: Some(image.user.clone()),
        default_workdir: image.workdir.clone(),
        env: Some(env),
        // A copy has its name from the driver: nobody inside may change it.
        hostname: None,
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
