//! The machine that agents run in.

use std::collections::BTreeMap;

use woodfrog_guest_client::GuestClient;
use woodfrog_guest_client::proto::StartRequest;

/// A machine, and as whom to be in it.
#[derive(Clone)]
pub struct Machine {
    /// Names the machine among others: installations exclude each other by it.
    pub key: String,
    /// The way in.
    pub client: GuestClient,
    /// A user of the machine; unset: its default.
    pub user: Option<String>,
    /// Added to the environment of what is started.
    pub env: BTreeMap<String, String>,
}

impl Machine {
    /// The machine as its default user.
    pub fn new(key: impl Into<String>, client: GuestClient) -> Self {
        Self {
            key: key.into(),
            client,
            user: None,
            env: BTreeMap::new(),
        }
    }

    /// A program of the machine, as the user.
    pub(crate) fn program(&self, cmd: impl Into<String>, args: Vec<String>) -> StartRequest {
        StartRequest {
            cmd: cmd.into(),
            args,
            env: self.env.clone(),
            user: self.user.clone(),
            ..StartRequest::default()
        }
    }

    /// A script of the machine's shell.
    pub(crate) fn shell(&self, script: &str, args: &[&str]) -> StartRequest {
        let first = ["-c", script, "sh"];
        let all = first.iter().chain(args).map(|arg| (*arg).to_owned());
        self.program("/bin/sh", all.collect())
    }
}
