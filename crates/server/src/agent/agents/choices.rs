//! Modes and models of an agent, as version 0.1 of the API has them.

use axum::extract::Path;
use axum::{Extension, Json};
use serde_json::{Value, json};
use woodfrog_types::{Code, Fault};

use super::{AgentHost, named, options};
use crate::agent::problem::Result;

/// The modes that a session of the agent can be in.
pub(super) async fn modes(
    Extension(host): Extension<AgentHost>,
    Path(agent): Path<String>,
) -> Result<Json<Value>> {
    let session = session(&host, &agent).await?;
    let modes = match session["modes"]["availableModes"].as_array() {
        Some(own) => own
            .iter()
            .map(|mode| entry(&mode["id"], mode))
            .collect::<Vec<_>>(),
        None => values(&session, "mode").0,
    };
    Ok(Json(json!({ "modes": modes })))
}

/// The models that a session of the agent can use.
pub(super) async fn models(
    Extension(host): Extension<AgentHost>,
    Path(agent): Path<String>,
) -> Result<Json<Value>> {
    let session = session(&host, &agent).await?;
    let own = &session["models"];
    let (mut models, current) = match own["availableModels"].as_array() {
        Some(listed) => (
            listed
                .iter()
                .map(|model| entry(&model["modelId"], model))
                .collect(),
            own["currentModelId"].clone(),
        ),
        None => values(&session, "model"),
    };
    let (levels, level) = values(&session, "thought_level");
    if !levels.is_empty() {
        let names: Vec<&Value> = levels.iter().map(|level| &level["id"]).collect();
        for model in &mut models {
            model["variants"] = json!(names);
            model["defaultVariant"] = level.clone();
        }
    }
    let mut reply = json!({ "models": models });
    if current.is_string() {
        reply["defaultModel"] = current;
    }
    Ok(Json(reply))
}

/// What the agent says of a session that begins.
async fn session(host: &AgentHost, agent: &str) -> Result<Value> {
    let id = named(agent)?;
    let guest = host.guest().await?;
    let status = host.agents.status(&host.machine(&guest), id).await?;
    if !status.installed {
        return Err(Fault::new(Code::AgentNotInstalled, id.as_str()).into());
    }
    Ok(options::session(host, &guest, &status).await?)
}

/// What can be chosen for the option of this name or category, and what is chosen.
fn values(session: &Value, name: &str) -> (Vec<Value>, Value) {
    let mut options = session["configOptions"].as_array().into_iter().flatten();
    let Some(option) = options.find(|option| option["id"] == name || option["category"] == name)
    else {
        return (Vec::new(), Value::Null);
    };
    let listed = option["options"].as_array().into_iter().flatten();
    // Values may be in groups.
    let listed = listed.flat_map(|value| match value["options"].as_array() {
        Some(group) => group.iter().collect(),
        None => vec![value],
    });
    let found = listed.map(|value| entry(&value["value"], value)).collect();
    (found, option["currentValue"].clone())
}

fn entry(id: &Value, of: &Value) -> Value {
    let name = of["name"].as_str().or(id.as_str()).unwrap_or_default();
    let description = of["description"].as_str().unwrap_or_default();
    json!({"id": id, "name": name, "description": description})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_name_or_category_and_in_groups() {
        let session = json!({"configOptions": [
            {"id": "m", "category": "model", "currentValue": "b", "options": [
                {"value": "a", "name": "A"},
                {"group": "g", "options": [{"value": "b", "description": "bee"}]},
            ]},
        ]});
        let (found, current) = values(&session, "model");
        assert_eq!(current, "b");
        assert_eq!(
            found,
            [
                json!({"id": "a", "name": "A", "description": ""}),
                json!({"id": "b", "name": "b", "description": "bee"}),
            ]
        );
        assert_eq!(values(&session, "mode").0, Vec::<Value>::new());
    }
}
