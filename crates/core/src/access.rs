//! Who may do what. A request is resolved once to a user, a workspace and a role; this says what
//! that role may do, and nothing else does.

mod actions;
mod members;
mod name;

pub use actions::{Action, Kind};
pub use members::{MemberChange, change_member};
pub use name::workspace_name;

use woodfrog_types::workspace::Role;
use woodfrog_types::{Code, Fault};

/// Whether somebody with that role may do it.
pub fn allows(role: Role, action: Action) -> bool {
    role >= action.least()
}

/// The same as a refusal: says what is wanted and what there is.
pub fn check(role: Role, action: Action) -> Result<(), Fault> {
    if allows(role, action) {
        return Ok(());
    }
    let message = format!(
        "Unauthorized: {} needs the role {} in this workspace, and you are {} here",
        action.as_str(),
        action.least().as_str(),
        role.as_str()
    );
    Err(Fault::new(Code::PermissionDenied, message))
}

/// What a member may be through a key: the lesser of both.
pub fn through_key(member: Role, key: Role) -> Role {
    member.min(key)
}

#[cfg(test)]
mod tests;
