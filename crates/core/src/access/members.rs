//! The rules about members.

use woodfrog_types::workspace::Role;
use woodfrog_types::{Code, Fault};

/// What is to happen to a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberChange {
    /// Somebody with that role now, if they are in it already.
    Add { there: Option<Role>, role: Role },
    /// From one role to another.
    Role { from: Role, to: Role },
    /// Somebody with that role goes.
    Remove { role: Role },
}

/// Whether somebody with the role `by` may do that. The owner is one person and stays; only the
/// owner makes and unmakes admins.
pub fn change_member(by: Role, change: MemberChange) -> Result<(), Fault> {
    if by < Role::Admin {
        return Err(denied(
            "Unauthorized: only owners and admins can manage members",
        ));
    }
    let owner = by == Role::Owner;
    match change {
        MemberChange::Add {
            role: Role::Owner, ..
        }
        | MemberChange::Role {
            to: Role::Owner, ..
        } => Err(Fault::invalid("role", "a workspace has one owner")),
        MemberChange::Add {
            role: Role::Admin, ..
        } if !owner => Err(denied("Unauthorized: only owners can add admin members")),
        MemberChange::Add { there: Some(_), .. } => Err(Fault::new(
            Code::AlreadyExists,
            "User is already a member of this workspace",
        )),
        MemberChange::Add { there: None, .. } => Ok(()),
        MemberChange::Role {
            from: Role::Owner, ..
        } => Err(Fault::new(
            Code::Conflict,
            "Cannot change the workspace owner's role",
        )),
        MemberChange::Role { from, to } => match from == Role::Admin || to == Role::Admin {
            true if !owner => Err(denied(
                "Unauthorized: only owners can change admin privileges",
            )),
            _ => Ok(()),
        },
        MemberChange::Remove { role: Role::Owner } => Err(Fault::new(
            Code::Conflict,
            "Cannot remove the workspace owner",
        )),
        MemberChange::Remove { role: Role::Admin } if !owner => {
            Err(denied("Unauthorized: only owners can remove admin members"))
        }
        MemberChange::Remove { .. } => Ok(()),
    }
}

fn denied(text: &str) -> Fault {
    Fault::new(Code::PermissionDenied, text)
}
