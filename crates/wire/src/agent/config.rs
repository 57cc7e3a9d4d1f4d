//! What a directory's agents are told about MCP servers and skills.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// One MCP server, as it is taken and as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum McpServer {
    #[serde(alias = "stdio")]
    Local(LocalMcp),
    #[serde(alias = "http")]
    Remote(RemoteMcp),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalMcp {
    pub command: McpCommand,
    #[serde(default)]
    pub args: Vec<String>,
    #[serde(
        default,
        alias = "environment",
        skip_serializing_if = "Option::is_none"
    )]
    pub env: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(default, alias = "timeout", skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

/// A program, or a program with arguments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum McpCommand {
    Program(String),
    Words(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteMcp {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer_token_env_var: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_headers: Option<BTreeMap<String, String>>,
    /// Settings, or `false`: no OAuth.
    #[serde(
        default,
        deserialize_with = "oauth",
        skip_serializing_if = "Option::is_none"
    )]
    pub oauth: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(default, alias = "timeout", skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<McpTransport>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum McpTransport {
    Http,
    Sse,
}

fn oauth<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Value>, D::Error> {
    match Value::deserialize(source)? {
        Value::Null => Ok(None),
        value @ (Value::Object(_) | Value::Bool(false)) => Ok(Some(value)),
        _ => Err(serde::de::Error::custom(
            "oauth must be an object or `false`",
        )),
    }
}

/// Where skills come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skills {
    pub sources: Vec<SkillSource>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkillSource {
    #[serde(rename = "type")]
    pub kind: SkillSourceKind,
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skills: Option<Vec<String>>,
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SkillSourceKind {
    Github,
    Local,
    Git,
}

#[derive(Debug, Clone, Deserialize)]
pub struct McpQuery {
    pub directory: String,
    #[serde(rename = "mcpName", alias = "mcp_name")]
    pub name: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct SkillsQuery {
    pub directory: String,
    #[serde(rename = "skillName", alias = "skill_name")]
    pub name: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn through(given: Value) -> Result<Value, String> {
        let parsed: McpServer = serde_json::from_value(given).map_err(|e| e.to_string())?;
        serde_json::to_value(parsed).map_err(|e| e.to_string())
    }

    #[test]
    fn aliases_are_taken_and_kept_by_their_names() {
        assert_eq!(
            through(json!({
                "type": "stdio", "command": ["x", "y"], "args": ["1"],
                "environment": {"A": "b"}, "timeout": 5,
            })),
            Ok(json!({
                "type": "local", "command": ["x", "y"], "args": ["1"], "env": {"A": "b"},
                "timeoutMs": 5,
            }))
        );
        assert_eq!(
            through(json!({"type": "http", "url": "http://x", "oauth": false, "transport": "sse"})),
            Ok(json!({"type": "remote", "url": "http://x", "oauth": false, "transport": "sse"}))
        );
        assert_eq!(
            through(json!({"type": "local", "command": "x"})),
            Ok(json!({"type": "local", "command": "x", "args": []}))
        );
    }

    #[test]
    fn other_shapes_are_refused() {
        for bad in [
            json!({"type": "carrier-pigeon", "url": "x"}),
            json!({"type": "remote"}),
            json!({"type": "remote", "url": "x", "oauth": true}),
            json!({"type": "local", "command": 5}),
        ] {
            assert!(through(bad.clone()).is_err(), "{bad}");
        }
    }
}
