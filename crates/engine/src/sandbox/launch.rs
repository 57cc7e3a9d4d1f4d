//! What is needed to bring a sandbox up, and how the record becomes a driver's spec.

use tokio::sync::oneshot;
use woodfrog_sandbox::{Egress, LaunchSpec};
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::snapshot::SnapshotContent;
use woodfrog_types::template::{BuildState, BuiltImage};
use woodfrog_types::{Fault, SandboxId, SnapshotId, WorkspaceId};

use crate::fault;
use crate::images::ImageError;
use crate::inner::Inner;
use crate::sandbox::hidden;
use crate::sandbox::shelf::Pin;
use crate::sandbox::spares::Spare;
use crate::volumes;

/// A sandbox to be brought up by its owner.
pub(crate) struct Boot {
    pub(crate) image: BuiltImage,
    pub(crate) origin: Origin,
    pub(crate) idempotency_key: Option<String>,
    /// Keeps its volumes until its record is there.
    pub(crate) _volumes: Vec<volumes::Pin>,
    pub(crate) reply: oneshot::Sender<Result<(), Fault>>,
}

/// What a new sandbox begins with.
pub(crate) enum Origin {
    /// Its template's layers; perhaps as a sandbox that was made ahead of them.
    Layers { spare: Option<Spare> },
    /// What another sandbox was at one moment.
    Snapshot {
        snapshot: SnapshotId,
        content: SnapshotContent,
        /// It is its own template's: if nothing can be made from it, its layers are used.
        warm: bool,
        /// Keeps the snapshot until the sandbox is there.
        _pin: Pin,
    },
}

/// The image that a sandbox was made from; `None` if its build is gone.
pub(crate) async fn image(inner: &Inner, sandbox: &Sandbox) -> Option<BuiltImage> {
    match inner.store.build_fetch(&sandbox.build).await {
        Ok(Some(build)) => match build.state {
            BuildState::Ready(image) => Some(image),
            BuildState::Waiting | BuildState::Building | BuildState::Failed { .. } => None,
        },
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(build = %sandbox.build, %error, "a build cannot be read");
            None
        }
    }
}

/// The driver's view of a sandbox's network rules, with the values that its record has sealed and
/// those that its workspace's secrets have now.
pub(crate) async fn egress(
    inner: &Inner,
    workspace: &WorkspaceId,
    owner: &SandboxId,
    network: &NetworkSpec,
) -> Result<Egress, Fault> {
    let network = hidden::opened(inner, owner, network.clone())?;
    let network = hidden::filled(inner, workspace, network).await?;
    Ok(egress_of(network))
}

/// The driver's view of rules that are open.
pub(crate) fn egress_of(network: NetworkSpec) -> Egress {
    Egress {
        internet: network.internet,
        allow: network.allow_out,
        deny: network.deny_out,
        dns_servers: network.dns_servers,
        header_rules: network.header_rules,
        proxy: network.egress_proxy,
    }
}

/// Whether requests of the sandbox are changed.
pub(crate) fn has_rules(network: &NetworkSpec) -> bool {
    network
        .header_rules
        .values()
        .any(|headers| !headers.is_empty())
}

/// The driver's view of a sandbox.
pub(crate) async fn spec(
    inner: &Inner,
    sandbox: &Sandbox,
    image: &BuiltImage,
) -> Result<LaunchSpec, Fault> {
    Ok(LaunchSpec {
        id: sandbox.id.clone(),
        layers: inner.images.paths(&image.layers).map_err(image_fault)?,
        hostname: sandbox.id.to_string(),
        resources: sandbox.resources,
        egress: egress(inner, &sandbox.workspace, &sandbox.id, &sandbox.network).await?,
        security: image.security,
        volumes: volumes::specs(inner, &sandbox.volumes),
    })
}

/// A failed call of the image source.
pub(crate) fn image_fault(error: ImageError) -> Fault {
    match error {
        ImageError::Rejected(message) => Fault::invalid("template", message),
        error @ ImageError::Failed { .. } => Fault::internal(error),
    }
}

/// Has the driver remove all of a sandbox, trying a few times: what cannot be removed now (a busy
/// mount) often can a moment later.
pub(crate) async fn destroy(inner: &Inner, id: &SandboxId) -> Result<(), Fault> {
    const TRIES: u32 = 4;
    let mut pause = std::time::Duration::from_millis(50);
    let mut attempt = 1;
    loop {
        match inner.driver.destroy(id).await {
            Ok(()) => return Ok(()),
            Err(error) if attempt < TRIES => {
                tracing::warn!(sandbox = %id, %error, attempt, "destroying failed; again");
                tokio::time::sleep(pause).await;
                pause *= 4;
                attempt += 1;
            }
            Err(error) => return Err(fault::driver(error)),
        }
    }
}
