use super::*;

/// Who may do what, written out a second time: a changed row must be changed in both places.
const VIEWER_READS: &[&str] = &[
    "server.info",
    "sandbox.read",
    "process.read",
    "file.read",
    "snapshot.read",
    "session.read",
    "sandbox_session.read",
    "persist.read",
    "agent.read",
    "template.read",
    "secret.read",
    "volume.read",
    "run.read",
    "artifact.read",
    "usage.read",
    "price.read",
    "budget.read",
    "workspace.read",
    "member.read",
    "limits.read",
    "sleep_defaults.read",
];
/// Whoever is known may make a workspace of their own.
const ANYBODY: &[&str] = &["workspace.create"];
const ADMIN: &[&str] = &[
    "artifact.review",
    "session.retention",
    "price.write",
    "budget.write",
    "webhook.write",
    "member.add",
    "member.role",
    "member.remove",
    "limits.write",
    "sleep_defaults.write",
    "key.read",
    "key.create",
    "key.rotate",
    "key.revoke",
    "audit.read",
];
const OWNER: &[&str] = &["workspace.rename", "workspace.remove", "unlisted"];

#[test]
fn every_role_may_do_what_the_table_says() {
    for action in Action::ALL {
        let name = action.as_str();
        let least = if VIEWER_READS.contains(&name) || ANYBODY.contains(&name) {
            Role::Viewer
        } else if ADMIN.contains(&name) {
            Role::Admin
        } else if OWNER.contains(&name) {
            Role::Owner
        } else {
            Role::Member
        };
        for role in Role::ALL {
            assert_eq!(allows(role, *action), role >= least, "{role:?} {name}");
            assert_eq!(check(role, *action).is_ok(), role >= least);
        }
    }
}

#[test]
fn viewers_read_and_write_nothing_of_a_workspace() {
    for action in Action::ALL {
        let reads = action.kind() == Kind::Read;
        if allows(Role::Viewer, *action) && *action != Action::WorkspaceCreate {
            assert!(reads, "{}", action.as_str());
        }
        // Everything that a name calls reading is.
        assert_eq!(
            reads,
            action.as_str().ends_with(".read") || *action == Action::ServerInfo,
        );
    }
}

#[test]
fn names_are_unique() {
    let mut seen = std::collections::HashSet::new();
    for action in Action::ALL {
        assert!(seen.insert(action.as_str()), "{}", action.as_str());
    }
}

#[test]
fn a_key_never_gives_more_than_its_user_has() {
    for member in Role::ALL {
        for key in Role::ALL {
            let role = through_key(member, key);
            assert!(role <= member && role <= key);
        }
    }
}

fn text(by: Role, change: MemberChange) -> Result<(), String> {
    change_member(by, change).map_err(|fault| fault.message)
}

#[test]
fn adding_members() {
    use MemberChange::Add;
    for by in Role::ALL {
        for role in Role::ALL {
            let new = text(by, Add { there: None, role });
            let again = text(
                by,
                Add {
                    there: Some(Role::Viewer),
                    role,
                },
            );
            let expected = match (by, role) {
                (Role::Viewer | Role::Member, _) => {
                    Err("Unauthorized: only owners and admins can manage members")
                }
                (_, Role::Owner) => Err("a workspace has one owner"),
                (Role::Admin, Role::Admin) => {
                    Err("Unauthorized: only owners can add admin members")
                }
                _ => Ok(()),
            };
            assert_eq!(new, expected.map_err(str::to_owned), "{by:?} {role:?}");
            let expected = expected.and(Err("User is already a member of this workspace"));
            assert_eq!(again, expected.map_err(str::to_owned), "{by:?} {role:?}");
        }
    }
}

#[test]
fn changing_roles() {
    for by in Role::ALL {
        for from in Role::ALL {
            for to in Role::ALL {
                let expected = match (by, from, to) {
                    (Role::Viewer | Role::Member, ..) => {
                        Err("Unauthorized: only owners and admins can manage members")
                    }
                    (_, _, Role::Owner) => Err("a workspace has one owner"),
                    (_, Role::Owner, _) => Err("Cannot change the workspace owner's role"),
                    (Role::Admin, Role::Admin, _) | (Role::Admin, _, Role::Admin) => {
                        Err("Unauthorized: only owners can change admin privileges")
                    }
                    _ => Ok(()),
                };
                let got = text(by, MemberChange::Role { from, to });
                assert_eq!(
                    got,
                    expected.map_err(str::to_owned),
                    "{by:?} {from:?} {to:?}"
                );
            }
        }
    }
}

#[test]
fn removing_members() {
    for by in Role::ALL {
        for role in Role::ALL {
            let expected = match (by, role) {
                (Role::Viewer | Role::Member, _) => {
                    Err("Unauthorized: only owners and admins can manage members")
                }
                (_, Role::Owner) => Err("Cannot remove the workspace owner"),
                (Role::Admin, Role::Admin) => {
                    Err("Unauthorized: only owners can remove admin members")
                }
                _ => Ok(()),
            };
            let got = text(by, MemberChange::Remove { role });
            assert_eq!(got, expected.map_err(str::to_owned), "{by:?} {role:?}");
        }
    }
}

#[test]
fn names_of_workspaces_have_limits() {
    let fits = "ä".repeat(100);
    assert!(workspace_name(&fits).is_ok());
    let long = workspace_name(&"ä".repeat(101)).expect_err("too long");
    assert_eq!(
        long.message,
        "name exceeds maximum length of 100 characters (got 101)"
    );
    assert!(workspace_name(" ").is_err());
    assert!(workspace_name("a\nb").is_err());
}
