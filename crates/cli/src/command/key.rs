//! `woodfrog key`.

use woodfrog_types::Timestamp;
use woodfrog_wire::native::key::{CreatedKey, Key, Keys, NewKey, Reach, Rotation, Scope};

use super::Outcome;
use crate::args::KeyCommand;
use crate::client::Client;
use crate::output;

pub(super) async fn run(command: KeyCommand) -> Outcome {
    match command {
        KeyCommand::Create {
            name,
            user,
            role,
            any_workspace,
            admin,
            expires_in,
            target,
        } => {
            let client = Client::new(&target)?;
            let request = NewKey {
                name,
                // The one that the flags name, else the key's.
                workspace: None,
                user,
                role: (!admin).then_some(role),
                reach: if any_workspace {
                    Reach::User
                } else {
                    Reach::Workspace
                },
                scope: if admin {
                    Scope::Admin
                } else {
                    Scope::Workspace
                },
                expires_at: expires_in.map(|time| Timestamp::now().plus(time).as_millis()),
            };
            let made: CreatedKey = client.json(client.post(&["keys"]).json(&request)).await?;
            show(&made, target.json)?;
        }
        KeyCommand::Rotate { id, grace, target } => {
            let client = Client::new(&target)?;
            let request = Rotation {
                grace_seconds: Some(grace.as_secs()),
            };
            let rotate = client.post(&["keys", &id, "rotate"]).json(&request);
            let made: CreatedKey = client.json(rotate).await?;
            show(&made, target.json)?;
        }
        KeyCommand::List { target } => {
            let client = Client::new(&target)?;
            let keys: Keys = client.json(client.get(&["keys"])).await?;
            if target.json {
                output::json(&keys.items)?;
            } else {
                let rows: Vec<Vec<String>> = keys.items.iter().map(row).collect();
                let headings = [
                    "ID",
                    "NAME",
                    "SCOPE",
                    "ROLE",
                    "USER",
                    "WORKSPACE",
                    "HINT",
                    "CREATED",
                    "LAST USED",
                    "EXPIRES",
                ];
                output::table(&headings, &rows)?;
            }
        }
        KeyCommand::Revoke { id, target } => {
            let client = Client::new(&target)?;
            client.send(client.delete(&["keys", &id])).await?;
            if target.json {
                output::json(&serde_json::json!({ "revoked": id }))?;
            }
        }
    }
    Ok(0)
}

/// The only time that the secret is seen.
fn show(made: &CreatedKey, json: bool) -> std::io::Result<()> {
    if json {
        return output::json(made);
    }
    output::line(&made.secret)?;
    output::note(&format!(
        "{}; E2B's clients take it as {}. It is not shown again.",
        made.key.id, made.e2b_secret
    ));
    Ok(())
}

fn row(key: &Key) -> Vec<String> {
    let at = |millis: Option<i64>| match millis {
        Some(millis) => Timestamp::from_millis(millis).to_rfc3339(),
        None => "never".to_owned(),
    };
    let scope = match key.scope {
        Scope::Admin => "admin",
        Scope::Workspace => "workspace",
    };
    vec![
        key.id.clone(),
        key.name.clone(),
        scope.to_owned(),
        key.role.as_str().to_owned(),
        key.user.clone().unwrap_or_default(),
        key.workspace.clone(),
        key.hint.clone(),
        at(Some(key.created_at)),
        at(key.last_used_at),
        at(key.expires_at),
    ]
}
