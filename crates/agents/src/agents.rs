//! The registry at work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use woodfrog_guest_client::proto::StartRequest;
use woodfrog_types::{Code, Fault};

use crate::catalog::Install;
use crate::command::LaunchOptions;
use crate::host_store::HostStore;
use crate::id::AgentId;
use crate::install::{InstallOptions, Installed};
use crate::machine::Machine;
use crate::status::Status;

/// Whether agents are installed on demand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preinstalled {
    /// What is missing is installed when it is wanted.
    #[default]
    Optional,
    /// What is missing is refused.
    Required,
}

/// How agents are dealt with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The command of the built-in agent inside machines: the program's absolute path and its
    /// arguments.
    pub mock: Vec<String>,
    /// Whether [`Agents::ensure`] installs.
    pub preinstalled: Preinstalled,
    /// How long an installation may take.
    pub install_timeout: Duration,
    /// Agents that the host has in store, for machines without a way to the registry.
    pub host_store: Option<HostStore>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mock: vec![
                "/usr/lib/woodfrog/guest".to_owned(),
                "mock-agent".to_owned(),
            ],
            preinstalled: Preinstalled::default(),
            install_timeout: Duration::from_secs(600),
            host_store: None,
        }
    }
}

/// What an installation is of.
type Place = (String, AgentId);

/// Finds, installs and starts agents. Cheap to share.
#[derive(Debug, Default)]
pub struct Agents {
    pub(crate) settings: Settings,
    installing: Mutex<HashMap<Place, Arc<tokio::sync::Mutex<()>>>>,
}

impl Agents {
    /// Nothing is looked at before the first call.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            installing: Mutex::default(),
        }
    }

    /// What the machine has of one agent.
    ///
    /// # Errors
    /// The machine does not answer, or has no shell.
    pub async fn status(&self, machine: &Machine, id: AgentId) -> Result<Status, Fault> {
        let mut all = machine.look(&[id], &self.settings.mock).await?;
        all.pop()
            .ok_or_else(|| Fault::internal("a look without an answer"))
    }

    /// What the machine has of every agent, in the order of [`AgentId::ALL`], at one look.
    ///
    /// # Errors
    /// As for [`Agents::status`].
    pub async fn statuses(&self, machine: &Machine) -> Result<Vec<Status>, Fault> {
        machine.look(&AgentId::ALL, &self.settings.mock).await
    }

    /// Sees to it that the agent can be started.
    ///
    /// # Errors
    /// `agent_not_installed` where agents have to be there already, `install_failed`,
    /// `unsupported_agent` for one that cannot be installed, and those of [`Agents::status`].
    pub async fn ensure(&self, machine: &Machine, id: AgentId) -> Result<Status, Fault> {
        let status = self.status(machine, id).await?;
        if status.installed {
            return Ok(status);
        }
        if self.settings.preinstalled == Preinstalled::Required {
            return Err(missing(id));
        }
        self.install(machine, id, &InstallOptions::default())
            .await?;
        let status = self.status(machine, id).await?;
        if status.installed {
            Ok(status)
        } else {
            Err(missing(id))
        }
    }

    /// Installs the agent, or says what is there already. One installation of an agent in a
    /// machine at a time; who comes second finds it there.
    ///
    /// # Errors
    /// `unsupported_agent` for an agent that cannot be installed or a version that cannot be, and
    /// `install_failed` with the installer's last lines.
    pub async fn install(
        &self,
        machine: &Machine,
        id: AgentId,
        options: &InstallOptions,
    ) -> Result<Installed, Fault> {
        let lock = self.lock(machine, id);
        let held = lock.lock().await;
        let result = self.install_alone(machine, id, options).await;
        drop(held);
        self.unlock(machine, id, lock);
        result
    }

    async fn install_alone(
        &self,
        machine: &Machine,
        id: AgentId,
        options: &InstallOptions,
    ) -> Result<Installed, Fault> {
        let wanted = options.wanted(id)?;
        let status = self.status(machine, id).await?;
        if status.installed && !options.must_install(&status) {
            return Ok(Installed::found(&status));
        }
        match id.definition().install {
            Install::Builtin => Err(Fault::new(
                Code::InstallFailed,
                "the built-in agent is not in this machine",
            )),
            Install::ByHand(why) => Err(Fault::new(
                Code::UnsupportedAgent,
                format!("{id} cannot be installed: {why}"),
            )),
            Install::Npm { .. } => {
                let stored = match &self.settings.host_store {
                    Some(store) => store.find(id, &wanted).map_err(Fault::internal)?,
                    None => None,
                };
                let timeout = self.settings.install_timeout;
                match stored {
                    Some(stored) => machine.unpack(&stored, timeout).await?,
                    None => machine.npm(id, &wanted, timeout).await?,
                }
                let status = self.status(machine, id).await?;
                Installed::made(&status, &wanted)
            }
        }
    }

    /// How the agent is started in the machine: its standard streams carry the protocol.
    ///
    /// # Errors
    /// `agent_not_installed`, and those of [`Agents::status`].
    pub async fn command(
        &self,
        machine: &Machine,
        id: AgentId,
        options: &LaunchOptions,
    ) -> Result<StartRequest, Fault> {
        let status = self.status(machine, id).await?;
        status.command(machine, options)
    }

    fn lock(&self, machine: &Machine, id: AgentId) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self
            .installing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.entry((machine.key.clone(), id)).or_default().clone()
    }

    /// Forgets a lock that nobody else holds.
    fn unlock(&self, machine: &Machine, id: AgentId, lock: Arc<tokio::sync::Mutex<()>>) {
        let mut all = self
            .installing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        drop(lock);
        let place = (machine.key.clone(), id);
        if all
            .get(&place)
            .is_some_and(|left| Arc::strong_count(left) == 1)
        {
            all.remove(&place);
        }
    }
}

pub(crate) fn missing(id: AgentId) -> Fault {
    Fault::new(
        Code::AgentNotInstalled,
        format!("agent not installed: {id}"),
    )
    .with_field("agent")
}
