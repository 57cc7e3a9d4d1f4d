//! Names of workspaces.

use woodfrog_types::Fault;
use woodfrog_types::workspace::Workspace;

/// Checks a name: 1 to 100 characters, none of them a control character.
pub fn workspace_name(name: &str) -> Result<(), Fault> {
    let chars = name.chars().count();
    if chars > Workspace::NAME_CHARS_MAX {
        let max = Workspace::NAME_CHARS_MAX;
        let message = format!("name exceeds maximum length of {max} characters (got {chars})");
        return Err(Fault::invalid("name", message));
    }
    if name.trim().is_empty() {
        return Err(Fault::invalid("name", "a workspace has a name"));
    }
    if name.chars().any(char::is_control) {
        let message = "a workspace's name has no control characters";
        return Err(Fault::invalid("name", message));
    }
    Ok(())
}
