//! The actions of the agent API.

use http::Method;
use woodfrog_core::access::Action;

/// The action of a request, by its method and its path below the sandbox.
pub(crate) fn action(method: &Method, path: &str) -> Action {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let part = path.strip_prefix("/v1/").unwrap_or(path);
    let part = part.split('/').next().unwrap_or_default();
    match (part, reads) {
        // What is typed into a terminal is not read.
        ("processes", true) if path.ends_with("/terminal/ws") => Action::ProcessControl,
        ("processes", true) => Action::ProcessRead,
        ("processes", false) if matches!(path, "/v1/processes" | "/v1/processes/run") => {
            Action::ProcessStart
        }
        ("processes", false) => Action::ProcessControl,
        ("fs", true) => Action::FileRead,
        ("fs", false) => Action::FileWrite,
        ("sessions" | "acp", true) => Action::SessionRead,
        ("sessions" | "acp", false) => Action::SessionPrompt,
        (_, true) => Action::AgentRead,
        (_, false) => Action::AgentWrite,
    }
}

#[cfg(test)]
mod tests {
    use woodfrog_core::access::Kind;

    use super::*;

    #[test]
    fn whatever_is_no_get_writes() {
        for path in [
            "/v1/processes",
            "/v1/processes/run",
            "/v1/processes/p1/input",
            "/v1/fs/file",
            "/v1/sessions/s1",
            "/v1/acp/a",
            "/v1/config/mcp",
            "/v1/agents/claude/install",
            "/v1/something/new",
        ] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                let action = action(&method, path);
                assert_eq!(action.kind(), Kind::Write, "{method} {path}");
            }
            assert_eq!(action(&Method::GET, path).kind(), Kind::Read, "{path}");
        }
        let terminal = action(&Method::GET, "/v1/processes/p1/terminal/ws");
        assert_eq!(terminal.kind(), Kind::Write);
    }
}
