//! `woodfrog agent`: the agents that a server has in store for its sandboxes.

use anyhow::Result;
use serde_json::json;
use woodfrog_agents::{AgentId, HostStore, Install, InstallOptions};
use woodfrog_cli::args::{AgentCommand, AgentStore};
use woodfrog_cli::output;

pub(crate) fn run(command: AgentCommand) -> Result<()> {
    match command {
        AgentCommand::List { store, json } => list(&open(&store), json),
        AgentCommand::Install {
            agent,
            agent_version,
            agent_process_version,
            reinstall,
            store,
        } => {
            let id: AgentId = agent.parse()?;
            let options = InstallOptions {
                reinstall,
                agent_version,
                agent_process_version,
            };
            let stored = open(&store).install(id, &options)?;
            output::note(&format!(
                "{id} {} is in store: {}",
                stored.version,
                stored.path.display()
            ));
            Ok(())
        }
    }
}

fn open(store: &AgentStore) -> HostStore {
    HostStore::new(store.data_dir.join("agents"))
}

fn list(store: &HostStore, json: bool) -> Result<()> {
    let mut agents = Vec::new();
    for id in AgentId::ALL {
        let from = match id.definition().install {
            Install::Builtin => "built in",
            Install::Npm { .. } => "npm",
            Install::ByHand(_) => "by hand",
        };
        let version = store.stored(id)?.map(|stored| stored.version);
        agents.push((id, id.definition().name, from, version));
    }
    if json {
        let all: Vec<_> = agents
            .iter()
            .map(|(id, name, from, version)| {
                json!({"id": id.as_str(), "name": name, "from": from, "stored": version})
            })
            .collect();
        return Ok(output::json(&all)?);
    }
    let rows: Vec<Vec<String>> = agents
        .into_iter()
        .map(|(id, name, from, version)| {
            let stored = version.unwrap_or_else(|| "-".to_owned());
            vec![id.to_string(), name.to_owned(), from.to_owned(), stored]
        })
        .collect();
    Ok(output::table(
        &["AGENT", "NAME", "FROM", "IN STORE"],
        &rows,
    )?)
}
