//! The direction of dependencies between our crates.

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::server::root;
use crate::step::output;

/// Crate → what it may depend on among ours (without `woodfrog-`). A crate that is not listed
/// fails the check, so a new one has to be placed.
const ALLOWED: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("guest-proto", &[]),
    ("linux", &[]),
    ("wire", &["types"]),
    ("core", &["types"]),
    ("store", &["types"]),
    ("store-rows", &["types", "store"]),
    ("store-sqlite", &["types", "store", "store-rows"]),
    ("store-postgres", &["types", "store", "store-rows"]),
    // Its fake driver answers as a guest would.
    ("sandbox", &["types", "guest-proto"]),
    ("agents", &["types", "guest-client"]),
    ("mock-agent", &[]),
    // The agent is carried into sandboxes inside the guest.
    ("guest", &["guest-proto", "linux", "mock-agent"]),
    ("guest-client", &["guest-proto"]),
    ("network", &[]),
    ("images", &[]),
    ("volumes", &[]),
    ("driver-common", &["types", "sandbox", "linux", "network"]),
    ("blob", &[]),
    ("artifacts", &[]),
    ("acp", &["types"]),
    (
        "sessions",
        &[
            "types",
            "core",
            "acp",
            "agents",
            "store",
            "engine",
            "guest-client",
        ],
    ),
    (
        "runs",
        &[
            "types",
            "core",
            "artifacts",
            "store",
            "engine",
            "sessions",
            "guest-client",
        ],
    ),
    (
        "driver-native",
        &[
            "types",
            "sandbox",
            "linux",
            "network",
            "guest-client",
            "driver-common",
        ],
    ),
    (
        "driver-gvisor",
        &[
            "types",
            "sandbox",
            "linux",
            "network",
            // It relays connections, and passes on descriptors that the guest cannot.
            "guest-proto",
            "driver-common",
        ],
    ),
    (
        "engine",
        &[
            "types",
            "core",
            "store",
            "sandbox",
            "guest-client",
            "images",
            "volumes",
        ],
    ),
    (
        "server",
        &[
            "types",
            "core",
            "wire",
            "engine",
            "guest-client",
            "guest-proto",
            "agents",
            "billing",
            "otlp",
            "runs",
            "sessions",
        ],
    ),
    ("billing", &["types", "core", "store", "engine"]),
    ("otlp", &["types"]),
    ("cli", &["types", "wire"]),
    ("testkit", &[]),
];

/// Checks the normal dependencies of every crate; tests may use more.
pub(crate) fn run() -> Result<()> {
    let text = output(
        crate::step::cargo()
            .args(["metadata", "--format-version=1", "--no-deps"])
            .current_dir(root()),
    )?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"]
        .as_array()
        .context("packages of cargo metadata")?;
    let mut broken = Vec::new();
    for package in packages {
        let Some(name) = package["name"]
            .as_str()
            .and_then(|n| n.strip_prefix("woodfrog-"))
        else {
            continue;
        };
        let Some((_, allowed)) = ALLOWED.iter().find(|(krate, _)| *krate == name) else {
            broken.push(format!("{name} has no place in xtask/src/edges.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"]
                .as_str()
                .and_then(|n| n.strip_prefix("woodfrog-"));
            if dependency["kind"].is_null()
                && let Some(target) = target
                && !allowed.contains(&target)
            {
                broken.push(format!("{name} must not depend on {target}"));
            }
        }
    }
    if !broken.is_empty() {
        bail!("forbidden edges:\n  {}", broken.join("\n  "));
    }
    println!("edges: {} packages checked", packages.len());
    Ok(())
}
