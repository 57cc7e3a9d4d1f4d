//! Sandboxes made from others: from a snapshot, and copies of one that runs or sleeps.

use std::collections::BTreeMap;

use futures_util::StreamExt as _;
use woodfrog_core::validate;
use woodfrog_sandbox::Capability;
use woodfrog_types::key::Principal;
use woodfrog_types::sandbox::{Resources, Sandbox, SandboxState};
use woodfrog_types::secret::VolumeMount;
use woodfrog_types::snapshot::{Snapshot, SnapshotContent, SnapshotPurpose};
use woodfrog_types::template::{BuildState, BuiltImage};
use woodfrog_types::{BuildId, Code, Fault, SandboxId, SnapshotId, TemplateId};

use crate::engine::Engine;
use crate::request::{CreateSandbox, ForkRequest};
use crate::sandbox::launch::Origin;
use crate::sandbox::live::Command;
use crate::sandbox::{hidden, shelf, warm};
use crate::view::SandboxView;

/// Copies that one call may make.
pub const FORK_MAX: u32 = 100;
/// Copies that are made at once.
const FORK_AT_ONCE: usize = 4;

/// What a sandbox is made from.
pub(crate) struct From {
    pub(crate) template: TemplateId,
    pub(crate) template_alias: Option<String>,
    pub(crate) build: BuildId,
    pub(crate) image: BuiltImage,
    pub(crate) origin: Origin,
    pub(crate) resources: Resources,
    pub(crate) env: BTreeMap<String, String>,
    /// Those of the snapshot.
    pub(crate) volumes: Vec<VolumeMount>,
}

impl Engine {
    /// What a request's template stands for: a snapshot's id, a template, a snapshot's name.
    pub(super) async fn source(
        &self,
        principal: &Principal,
        request: &CreateSandbox,
    ) -> Result<From, Fault> {
        let reference = &request.template;
        if reference.parse::<SnapshotId>().is_ok() {
            let snapshot = self.snapshot_fetch(principal, reference).await?;
            return self.source_snapshot(&snapshot.id, request.resources).await;
        }
        match self.template_source(principal, reference).await {
            Ok(source) => Ok(From {
                origin: match request.volumes.is_empty() {
                    true => {
                        warm::origin(
                            &self.inner,
                            &source.template,
                            source.build,
                            &source.image,
                            request.resources,
                        )
                        .await
                    }
                    // What was started before has none, and gets none while it runs.
                    false => Origin::Layers { spare: None },
                },
                template: source.template.id,
                template_alias: Some(source.template.name),
                build: source.build,
                image: source.image,
                resources: source.template.resources,
                env: BTreeMap::new(),
                volumes: Vec::new(),
            }),
            Err(fault) if fault.code == Code::TemplateNotFound => {
                match self.snapshot_find(principal, reference).await? {
                    Some(known) => self.source_snapshot(&known.id, request.resources).await,
                    None => Err(fault),
                }
            }
            Err(fault) => Err(fault),
        }
    }

    async fn source_snapshot(
        &self,
        id: &SnapshotId,
        resources: Option<Resources>,
    ) -> Result<From, Fault> {
        let (snapshot, pin) = shelf::take_local(&self.inner, id).await?;
        crate::lease::check_here(&self.inner, &snapshot).await?;
        if snapshot.driver != self.inner.driver.name() {
            return Err(Fault::new(
                Code::SnapshotUnusable,
                format!("the snapshot {id} is of the driver `{}`", snapshot.driver),
            ));
        }
        if snapshot.content == SnapshotContent::Memory
            && resources.is_some_and(|wanted| wanted.cpu_count != snapshot.resources.cpu_count)
        {
            return Err(Fault::invalid(
                "resources.cpu_count",
                "a sandbox made from a snapshot with memory has the CPUs of its source",
            ));
        }
        let build = self.build_known(&snapshot.build).await?;
        let Some(BuildState::Ready(image)) = build.map(|build| build.state) else {
            return Err(Fault::new(
                Code::SnapshotUnusable,
                format!("the template build that the snapshot {id} was made from is gone"),
            ));
        };
        Ok(From {
            template: snapshot.template,
            template_alias: snapshot.template_alias,
            build: snapshot.build,
            image,
            origin: Origin::Snapshot {
                snapshot: snapshot.id,
                content: snapshot.content,
                warm: false,
                _pin: pin,
            },
            resources: snapshot.resources,
            env: snapshot.env,
            volumes: snapshot.volumes,
        })
    }

    /// Copies a sandbox with its memory; it goes on itself. One result per copy.
    pub async fn sandbox_fork(
        &self,
        principal: &Principal,
        id: &SandboxId,
        request: ForkRequest,
    ) -> Result<Vec<Result<SandboxView, Fault>>, Fault> {
        self.inner.accepting()?;
        if !(1..=FORK_MAX).contains(&request.count) {
            return Err(Fault::invalid("count", format!("must be 1 to {FORK_MAX}")));
        }
        validate::timeout(request.timeout, self.inner.options.timeout_max)?;
        let record = self.record(principal, id).await?;
        if let Some(why) = (self.inner.driver.capabilities()).why_missing(Capability::Checkpoint) {
            return Err(Fault::new(
                Code::Unsupported,
                format!("forking is not supported on this machine: {why}"),
            ));
        }
        let content = match &record.state {
            SandboxState::Hibernated { content, .. } | SandboxState::Archived { content, .. } => {
                *content
            }
            _ => SnapshotContent::Memory,
        };
        let snapshot = self
            .ask(principal, id, |reply| Command::Checkpoint {
                snapshot: Box::new(shelf::draft(
                    &self.inner,
                    &record,
                    content,
                    SnapshotPurpose::Fork,
                )),
                reply,
            })
            .await?;
        let copies: Vec<_> = futures_util::stream::iter(0..request.count)
            .map(|_| self.copy(principal, &record, &snapshot, request))
            .buffered(FORK_AT_ONCE)
            .collect()
            .await;
        if snapshot.purpose == SnapshotPurpose::Fork {
            shelf::discard(&self.inner, &snapshot.id).await;
        }
        self.log_fork(id, &copies).await;
        Ok(copies)
    }

    async fn copy(
        &self,
        principal: &Principal,
        source: &Sandbox,
        snapshot: &Snapshot,
        request: ForkRequest,
    ) -> Result<SandboxView, Fault> {
        let wanted = CreateSandbox {
            template: snapshot.id.to_string(),
            timeout: request.timeout,
            on_timeout: source.on_timeout,
            auto_resume: source.auto_resume,
            sleep: source.sleep.into(),
            metadata: source.metadata.clone(),
            env: source.env.clone(),
            network: hidden::opened(&self.inner, &source.id, source.network.clone())?,
            secure: source.secure,
            volumes: Vec::new(),
            resources: None,
            idempotency_key: None,
        };
        let from = self.source_snapshot(&snapshot.id, None).await?;
        self.make_from(principal, wanted, from).await
    }

    async fn log_fork(&self, id: &SandboxId, copies: &[Result<SandboxView, Fault>]) {
        let made = copies.iter().filter(|copy| copy.is_ok()).count();
        let ids: Vec<&str> = copies
            .iter()
            .flatten()
            .map(|view| view.sandbox.id.as_str())
            .collect();
        let event = woodfrog_store::NewEvent {
            at: woodfrog_types::Timestamp::now(),
            level: woodfrog_types::event::Level::Info,
            kind: "sandbox.forked".to_owned(),
            message: format!("{made} of {} copies were made", copies.len()),
            fields: BTreeMap::from([("copies".to_owned(), ids.join(","))]),
        };
        if let Err(error) = self.inner.store.event_append(id, vec![event]).await {
            tracing::warn!(sandbox = %id, %error, "the log could not be written");
        }
    }
}
