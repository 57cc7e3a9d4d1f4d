//! Which action each route is. A route that is not here lets nobody in but owners, and a test fails.

use axum::extract::{MatchedPath, OriginalUri, Request};
use woodfrog_core::access::Action::{self, *};

/// Below this prefix the path names the workspace that is meant.
const WORKSPACES: &str = "/workspaces/";

type Row = (&'static str, &'static str, Action);

/// The native API, without its prefix.
const NATIVE: &[Row] = &[
    ("GET", "/info", ServerInfo),
    ("GET", "/keys", KeyRead),
    ("POST", "/keys", KeyCreate),
    ("DELETE", "/keys/{id}", KeyRevoke),
    ("POST", "/keys/{id}/rotate", KeyRotate),
    ("GET", "/workspaces", WorkspaceRead),
    ("POST", "/workspaces", WorkspaceCreate),
    ("GET", "/workspaces/removals", WorkspaceRead),
    ("GET", "/workspaces/{workspace}", WorkspaceRead),
    ("PATCH", "/workspaces/{workspace}", WorkspaceRename),
    ("DELETE", "/workspaces/{workspace}", WorkspaceRemove),
    ("GET", "/workspaces/{workspace}/members", MemberRead),
    ("POST", "/workspaces/{workspace}/members", MemberAdd),
    (
        "PATCH",
        "/workspaces/{workspace}/members/{user}",
        MemberRole,
    ),
    (
        "DELETE",
        "/workspaces/{workspace}/members/{user}",
        MemberRemove,
    ),
    ("GET", "/workspaces/{workspace}/limits", LimitsRead),
    ("PUT", "/workspaces/{workspace}/limits", LimitsWrite),
    ("GET", "/workspaces/{workspace}/sleep", SleepDefaultsRead),
    ("PUT", "/workspaces/{workspace}/sleep", SleepDefaultsWrite),
    ("GET", "/workspaces/{workspace}/audit", AuditRead),
    ("GET", "/workspaces/{workspace}/audit/verify", AuditRead),
    ("GET", "/workspaces/{workspace}/audit/export", AuditRead),
    ("GET", "/workspaces/{workspace}/audit/report", AuditRead),
    ("GET", "/session-retention", SessionRead),
    ("PUT", "/session-retention", SessionRetention),
    ("DELETE", "/session-retention", SessionRetention),
    ("GET", "/session-export", SessionRead),
    ("GET", "/budget", BudgetRead),
    ("PATCH", "/budget", BudgetWrite),
    ("DELETE", "/budget", BudgetWrite),
    ("GET", "/budgets", BudgetRead),
    ("GET", "/usage", UsageRead),
    ("GET", "/usage/export", UsageRead),
    ("GET", "/usage/runs", UsageRead),
    ("GET", "/usage/tools", UsageRead),
    ("GET", "/webhooks", WebhookRead),
    ("POST", "/webhooks", WebhookWrite),
    ("GET", "/webhooks/{id}", WebhookRead),
    ("PATCH", "/webhooks/{id}", WebhookWrite),
    ("DELETE", "/webhooks/{id}", WebhookWrite),
    ("GET", "/webhooks/{id}/deliveries", WebhookRead),
    ("POST", "/webhooks/{id}/replay", WebhookWrite),
    ("GET", "/prices", PriceRead),
    ("GET", "/prices/versions", PriceRead),
    ("PATCH", "/prices", PriceWrite),
    ("PUT", "/prices", PriceWrite),
    ("GET", "/persist/sessions", PersistRead),
    ("GET", "/persist/sessions/{id}", PersistRead),
    ("PUT", "/persist/sessions/{id}", PersistWrite),
    ("DELETE", "/persist/sessions/{id}", PersistWrite),
    ("GET", "/persist/sessions/{id}/events", PersistRead),
    ("POST", "/persist/sessions/{id}/events", PersistWrite),
    ("GET", "/sandbox-sessions", SandboxSessionRead),
    ("POST", "/sandbox-sessions", SandboxSessionWrite),
    (
        "GET",
        "/sandbox-sessions/by-sandbox/{id}",
        SandboxSessionRead,
    ),
    (
        "DELETE",
        "/sandbox-sessions/by-sandbox/{id}",
        SandboxSessionWrite,
    ),
    (
        "POST",
        "/sandbox-sessions/by-sandbox/{id}/activity",
        SandboxSessionWrite,
    ),
    ("GET", "/sandbox-sessions/{id}", SandboxSessionRead),
    ("DELETE", "/sandbox-sessions/{id}", SandboxSessionWrite),
    (
        "POST",
        "/sandbox-sessions/{id}/activity",
        SandboxSessionWrite,
    ),
    ("GET", "/sandbox-sessions/{id}/events", SandboxSessionRead),
    ("PUT", "/sandbox-sessions/{id}/state", SandboxSessionWrite),
    ("GET", "/sandboxes", SandboxRead),
    ("POST", "/sandboxes", SandboxCreate),
    ("GET", "/sandboxes/{id}", SandboxRead),
    ("DELETE", "/sandboxes/{id}", SandboxDelete),
    ("POST", "/sandboxes/{id}/activity", SandboxUpdate),
    ("POST", "/sandboxes/{id}/archive", SandboxSleep),
    ("POST", "/sandboxes/{id}/checkpoint", SandboxCheckpoint),
    ("GET", "/sandboxes/{id}/events", SandboxRead),
    ("POST", "/sandboxes/{id}/exec", ProcessStart),
    ("GET", "/sandboxes/{id}/files", FileRead),
    ("DELETE", "/sandboxes/{id}/files", FileWrite),
    ("GET", "/sandboxes/{id}/files/content", FileRead),
    ("PUT", "/sandboxes/{id}/files/content", FileWrite),
    ("POST", "/sandboxes/{id}/files/directories", FileWrite),
    ("POST", "/sandboxes/{id}/files/move", FileWrite),
    ("GET", "/sandboxes/{id}/files/stat", FileRead),
    ("GET", "/sandboxes/{id}/files/watch", FileRead),
    ("POST", "/sandboxes/{id}/fork", SandboxFork),
    ("POST", "/sandboxes/{id}/hibernate", SandboxSleep),
    ("PUT", "/sandboxes/{id}/holds/{name}", SandboxUpdate),
    ("DELETE", "/sandboxes/{id}/holds/{name}", SandboxUpdate),
    ("GET", "/sandboxes/{id}/metrics", SandboxRead),
    ("PUT", "/sandboxes/{id}/network", SandboxUpdate),
    ("POST", "/sandboxes/{id}/pause", SandboxSleep),
    ("GET", "/sandboxes/{id}/processes", ProcessRead),
    (
        "GET",
        "/sandboxes/{id}/processes/{process}/output",
        ProcessRead,
    ),
    (
        "POST",
        "/sandboxes/{id}/processes/{process}/signal",
        ProcessControl,
    ),
    (
        "PUT",
        "/sandboxes/{id}/processes/{process}/size",
        ProcessControl,
    ),
    (
        "POST",
        "/sandboxes/{id}/processes/{process}/stdin",
        ProcessControl,
    ),
    (
        "DELETE",
        "/sandboxes/{id}/processes/{process}/stdin",
        ProcessControl,
    ),
    // A terminal is typed into, though it is opened with GET.
    ("GET", "/sandboxes/{id}/pty", ProcessStart),
    ("POST", "/sandboxes/{id}/resume", SandboxWake),
    ("PUT", "/sandboxes/{id}/sleep-policy", SandboxUpdate),
    ("PUT", "/sandboxes/{id}/timeout", SandboxUpdate),
    ("GET", "/sandboxes/{id}/wakefulness", SandboxRead),
    ("GET", "/sessions", SessionRead),
    ("POST", "/sessions", SessionCreate),
    ("GET", "/sessions/{id}", SessionRead),
    ("DELETE", "/sessions/{id}", SessionDelete),
    ("POST", "/sessions/{id}/answer", SessionUpdate),
    ("POST", "/sessions/{id}/cancel", SessionUpdate),
    ("POST", "/sessions/{id}/end", SessionUpdate),
    ("GET", "/sessions/{id}/events", SessionRead),
    ("GET", "/sessions/{id}/export", SessionRead),
    ("POST", "/sessions/{id}/presence", SessionUpdate),
    ("POST", "/sessions/{id}/prompt", SessionPrompt),
    // Its clients send prompts and answers.
    ("GET", "/sessions/{id}/socket", SessionPrompt),
    ("GET", "/sessions/{id}/turns", SessionRead),
    ("POST", "/sessions/{id}/rewind", SessionUpdate),
    ("POST", "/sessions/{id}/fork", SessionCreate),
    ("POST", "/runs", RunCreate),
    ("GET", "/runs", RunRead),
    ("GET", "/runs/{id}", RunRead),
    ("POST", "/runs/{id}/cancel", RunCancel),
    ("GET", "/runs/{id}/events", RunRead),
    ("GET", "/runs/{id}/socket", RunRead),
    ("DELETE", "/runs/{id}", RunDelete),
    ("GET", "/runs/{id}/artifacts", ArtifactRead),
    ("GET", "/artifacts", ArtifactRead),
    ("GET", "/artifacts/{id}", ArtifactRead),
    ("DELETE", "/artifacts/{id}", ArtifactWrite),
    ("GET", "/artifacts/{id}/content", ArtifactRead),
    ("POST", "/artifacts/{id}/review", ArtifactReview),
    ("POST", "/layers/gc", TemplateDelete),
    ("GET", "/snapshots", SnapshotRead),
    ("POST", "/snapshots/gc", SnapshotDelete),
    ("GET", "/snapshots/{snapshot}", SnapshotRead),
    ("DELETE", "/snapshots/{snapshot}", SnapshotDelete),
    ("PATCH", "/snapshots/{snapshot}/labels", SnapshotUpdate),
    ("POST", "/snapshots/{snapshot}/verify", SnapshotUpdate),
    ("GET", "/templates", TemplateRead),
    ("GET", "/templates/{name}", TemplateRead),
    ("DELETE", "/templates/{name}", TemplateDelete),
    ("GET", "/templates/{name}/builds", TemplateRead),
    ("GET", "/templates/{name}/builds/{build}", TemplateRead),
    ("GET", "/templates/{name}/builds/{build}/log", TemplateRead),
    ("POST", "/templates/{name}/import", TemplateWrite),
    ("POST", "/templates/{name}/prepare", TemplateWrite),
    ("PUT", "/templates/{name}/security", TemplateWrite),
    ("GET", "/volumes", VolumeRead),
    ("POST", "/volumes", VolumeWrite),
    ("GET", "/volumes/{volume}", VolumeRead),
    ("DELETE", "/volumes/{volume}", VolumeDelete),
];

/// The E2B control plane: the routes for which a key is asked.
const E2B: &[Row] = &[
    ("POST", "/v3/templates", TemplateWrite),
    ("POST", "/v2/templates/{id}/builds/{build}", TemplateWrite),
    ("GET", "/templates/{id}/builds/{build}/status", TemplateRead),
    ("GET", "/templates/{id}/builds/{build}/logs", TemplateRead),
    ("GET", "/sandboxes", SandboxRead),
    ("GET", "/v2/sandboxes", SandboxRead),
    ("GET", "/sandboxes/{id}/logs", SandboxRead),
    ("GET", "/v2/sandboxes/{id}/logs", SandboxRead),
    ("GET", "/sandboxes/{id}/metrics", SandboxRead),
    ("GET", "/sandboxes/metrics", SandboxRead),
    ("PUT", "/sandboxes/{id}/network", SandboxUpdate),
    ("POST", "/sandboxes", SandboxCreate),
    ("POST", "/v2/sandboxes", SandboxCreate),
    ("GET", "/sandboxes/{id}", SandboxRead),
    ("DELETE", "/sandboxes/{id}", SandboxDelete),
    ("POST", "/sandboxes/{id}/timeout", SandboxUpdate),
    ("POST", "/sandboxes/{id}/refreshes", SandboxUpdate),
    ("GET", "/secrets", SecretRead),
    ("POST", "/secrets", SecretWrite),
    ("GET", "/secrets/{id}", SecretRead),
    ("POST", "/secrets/{id}", SecretWrite),
    ("DELETE", "/secrets/{id}", SecretDelete),
    ("POST", "/sandboxes/{id}/pause", SandboxSleep),
    ("POST", "/sandboxes/{id}/connect", SandboxWake),
    ("POST", "/v2/sandboxes/{id}/connect", SandboxWake),
    ("POST", "/sandboxes/{id}/resume", SandboxWake),
    ("POST", "/sandboxes/{id}/fork", SandboxFork),
    ("POST", "/sandboxes/{id}/snapshots", SandboxCheckpoint),
    ("GET", "/snapshots", SnapshotRead),
    ("GET", "/templates/{id}/tags/count", TemplateRead),
    ("GET", "/templates/{id}/tags/exists", TemplateRead),
    ("GET", "/templates/{id}/tags/groups", TemplateRead),
    (
        "GET",
        "/templates/{id}/tags/{tag}/assignments",
        TemplateRead,
    ),
    ("POST", "/templates/tags", TemplateWrite),
    ("DELETE", "/templates/tags", TemplateWrite),
    ("GET", "/templates/{id}/tags", TemplateRead),
    ("GET", "/templates", TemplateRead),
    ("GET", "/v2/templates", TemplateRead),
    ("GET", "/default-templates", TemplateRead),
    ("GET", "/templates/{id}", TemplateRead),
    ("PATCH", "/templates/{id}", TemplateWrite),
    ("PATCH", "/v2/templates/{id}", TemplateWrite),
    ("DELETE", "/templates/{id}", TemplateDelete),
    ("GET", "/templates/aliases/{alias}", TemplateRead),
    // What it answers with is a place to write to.
    ("GET", "/templates/{id}/files/{hash}", TemplateWrite),
    ("GET", "/volumes", VolumeRead),
    ("POST", "/volumes", VolumeWrite),
    ("GET", "/volumes/{id}", VolumeRead),
    ("DELETE", "/volumes/{id}", VolumeDelete),
];

fn find(rows: &[Row], method: &str, path: &str) -> Option<Action> {
    // What answers GET answers HEAD.
    let method = if method == "HEAD" { "GET" } else { method };
    let mut rows = rows.iter();
    let found = rows.find(|(verb, route, _)| *verb == method && *route == path);
    found.map(|(.., action)| *action)
}

/// The action of a route of the native API; `path` is without its prefix.
pub fn native_action(method: &str, path: &str) -> Option<Action> {
    find(NATIVE, method, path)
}

/// The action of a route of the E2B control plane that asks for a key.
pub fn e2b_action(method: &str, path: &str) -> Option<Action> {
    find(E2B, method, path)
}

/// The workspace that the path of a native route names.
pub(super) fn workspace_in(request: &Request) -> Option<String> {
    let matched = request.extensions().get::<MatchedPath>()?;
    let route = matched.as_str().strip_prefix(crate::native::PREFIX)?;
    if !route.starts_with("/workspaces/{") {
        return None;
    }
    let original = request.extensions().get::<OriginalUri>();
    let path = original
        .map_or(request.uri(), |OriginalUri(uri)| uri)
        .path();
    let rest = path
        .strip_prefix(crate::native::PREFIX)?
        .strip_prefix(WORKSPACES)?;
    let name = rest.split('/').next()?;
    let name = percent_encoding::percent_decode_str(name)
        .decode_utf8()
        .ok()?;
    // The one that the key or the header says.
    (name != "current").then(|| name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_for_a_key_has_an_action() {
        for route in crate::e2b::table() {
            if route.access == crate::e2b::Access::Key {
                let found = e2b_action(route.method, route.path);
                assert!(found.is_some(), "{} {}", route.method, route.path);
            }
        }
    }

    #[test]
    fn no_row_is_left_of_an_e2b_route_that_is_gone() {
        let routes = crate::e2b::table();
        for (method, path, _) in E2B {
            let there = routes
                .iter()
                .any(|one| one.method == *method && one.path == *path);
            assert!(there, "{method} {path}");
        }
    }

    #[test]
    fn every_documented_route_has_an_action_and_reading_is_what_it_says() {
        let document = serde_json::to_value(crate::native::document()).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        for (path, operations) in paths {
            for method in ["get", "put", "post", "patch", "delete"] {
                if operations.get(method).is_none() {
                    continue;
                }
                let method = method.to_uppercase();
                let action = native_action(&method, path);
                let action = action.unwrap_or_else(|| panic!("no action: {method} {path}"));
                let reads = action.kind() == woodfrog_core::access::Kind::Read;
                assert!(!reads || method == "GET", "{method} {path} only reads");
            }
        }
    }
}
