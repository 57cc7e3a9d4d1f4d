//! How an agent is started.

use std::collections::BTreeMap;

use woodfrog_guest_client::proto::{StartRequest, StdinMode, limits};
use woodfrog_types::Fault;

use crate::agents::missing;
use crate::machine::Machine;
use crate::status::Status;

/// What the caller decides about an agent's process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchOptions {
    /// Its directory; unset: the machine's default.
    pub cwd: Option<String>,
    /// Wins over the machine's and the agent's own.
    pub env: BTreeMap<String, String>,
    /// A name to find the process by.
    pub tag: Option<String>,
}

impl Status {
    /// The process to start: stdin open, as much output kept as can be.
    ///
    /// # Errors
    /// `agent_not_installed`.
    pub fn command(
        &self,
        machine: &Machine,
        options: &LaunchOptions,
    ) -> Result<StartRequest, Fault> {
        let path = self.path.clone().ok_or_else(|| missing(self.id))?;
        let mut request = machine.program(path, self.args.clone());
        for (name, value) in self.id.definition().env {
            let entry = request.env.entry((*name).to_owned());
            entry.or_insert_with(|| (*value).to_owned());
        }
        let own = options.env.iter();
        request
            .env
            .extend(own.map(|(name, value)| (name.clone(), value.clone())));
        request.cwd.clone_from(&options.cwd);
        request.tag.clone_from(&options.tag);
        request.stdin = StdinMode::Open;
        request.retention = Some(limits::MAX_RETENTION as u64);
        Ok(request)
    }
}
