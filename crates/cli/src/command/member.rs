//! `woodfrog member`.

use reqwest::Method;
use woodfrog_types::Timestamp;
use woodfrog_wire::native::workspace::{Member, MemberChange, Members, NewMember};

use super::Outcome;
use crate::args::MemberCommand;
use crate::client::Client;
use crate::output;

/// The workspace that the flags or the key say.
const MEMBERS: [&str; 3] = ["workspaces", "current", "members"];

pub(super) async fn run(command: MemberCommand) -> Outcome {
    match command {
        MemberCommand::Add { user, role, target } => {
            let client = Client::new(&target)?;
            let request = client.post(&MEMBERS).json(&NewMember { user, role });
            let added: Member = client.json(request).await?;
            show(&added, target.json)?;
        }
        MemberCommand::List { target } => {
            let client = Client::new(&target)?;
            let members: Members = client.json(client.get(&MEMBERS)).await?;
            if target.json {
                output::json(&members.items)?;
            } else {
                let rows: Vec<Vec<String>> = members.items.iter().map(row).collect();
                output::table(&["USER", "ROLE", "JOINED"], &rows)?;
            }
        }
        MemberCommand::Role { user, role, target } => {
            let client = Client::new(&target)?;
            let [workspaces, current, members] = MEMBERS;
            let url = client.route(&[workspaces, current, members, &user]);
            let request = client.request(Method::PATCH, url);
            let changed: Member = client.json(request.json(&MemberChange { role })).await?;
            show(&changed, target.json)?;
        }
        MemberCommand::Remove { user, target } => {
            let client = Client::new(&target)?;
            let [workspaces, current, members] = MEMBERS;
            let request = client.delete(&[workspaces, current, members, &user]);
            client.send(request).await?;
            if target.json {
                output::json(&serde_json::json!({ "removed": user }))?;
            }
        }
    }
    Ok(0)
}

fn show(member: &Member, json: bool) -> std::io::Result<()> {
    if json {
        return output::json(member);
    }
    output::line(&format!("{} is {}", member.user, member.role.as_str()))
}

fn row(member: &Member) -> Vec<String> {
    vec![
        member.user.clone(),
        member.role.as_str().to_owned(),
        Timestamp::from_millis(member.joined_at).to_rfc3339(),
    ]
}
