//! Commands about the people in a workspace.

use clap::Subcommand;
use woodfrog_wire::native::workspace::Role;

use super::{Target, role};

#[derive(Debug, Subcommand)]
pub enum MemberCommand {
    /// Take somebody in.
    Add {
        user: String,
        /// viewer, member or admin; admins are taken in by the owner.
        #[arg(long, default_value = "member", value_parser = role)]
        role: Role,
        #[command(flatten)]
        target: Target,
    },
    /// Who is in the workspace, and as what.
    List {
        #[command(flatten)]
        target: Target,
    },
    /// Give somebody another role.
    Role {
        user: String,
        /// viewer, member or admin; admins are made and unmade by the owner.
        #[arg(value_parser = role)]
        role: Role,
        #[command(flatten)]
        target: Target,
    },
    /// Put somebody out; their open streams end within seconds.
    Remove {
        user: String,
        #[command(flatten)]
        target: Target,
    },
}
