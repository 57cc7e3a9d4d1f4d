//! Making sandboxes.

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use woodfrog_core::admission::Used;
use woodfrog_core::{egress, lifecycle, mounts, sleep, validate};
use woodfrog_sandbox::Capability;
use woodfrog_store::{IdempotencyEntry, IdempotencyOutcome};
use woodfrog_types::key::Principal;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{OnTimeout, Resources, Sandbox, SandboxState};
use woodfrog_types::{Code, Fault, SandboxId, Timestamp};

use crate::engine::Engine;
use crate::fault;
use crate::inner::Inner;
use crate::layers;
use crate::request::CreateSandbox;
use crate::sandbox::copies::From;
use crate::sandbox::launch::{self, Boot, Origin};
use crate::sandbox::live::Live;
use crate::sandbox::{hidden, owner, place};
use crate::view::SandboxView;

/// How long an idempotency key is remembered.
pub(crate) const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(24 * 3600);

impl Engine {
    /// Makes a sandbox; it is recorded, runs and its guest answers when this returns. On an error
    /// nothing of it is left. If the returned future is dropped the sandbox is made all the same.
    pub async fn sandbox_create(
        &self,
        principal: &Principal,
        request: CreateSandbox,
    ) -> Result<SandboxView, Fault> {
        self.inner.accepting()?;
        self.check(&request)?;
        self.check_secrets(&principal.workspace, &request.network)
            .await?;
        self.check_proxy(&request.network).await?;
        match request.idempotency_key.clone() {
            None => self.make(principal, request).await,
            Some(key) => self.make_once(principal, request, &key).await,
        }
    }

    fn check(&self, request: &CreateSandbox) -> Result<(), Fault> {
        validate::timeout(request.timeout, self.inner.options.timeout_max)?;
        validate::metadata(&request.metadata)?;
        validate::env(&request.env)?;
        egress::validate(&request.network)?;
        mounts::check(&request.volumes)?;
        if let Some(key) = &request.idempotency_key {
            validate::idempotency_key(key)?;
        }
        let capabilities = self.inner.driver.capabilities();
        if let Some(resources) = &request.resources {
            validate::resources(resources)?;
            if let Some(why) = capabilities.why_missing(Capability::DiskLimit)
                && resources.disk_bytes != Resources::default().disk_bytes
            {
                return Err(unsupported("a disk limit", why).with_field("resources.disk_bytes"));
            }
        }
        if let Some(why) = capabilities.why_missing(Capability::Volumes)
            && !request.volumes.is_empty()
        {
            return Err(unsupported("mounting volumes", why).with_field("volumes"));
        }
        if !request.network.allow_public_traffic && !request.secure {
            return Err(Fault::invalid(
                "network.allow_public_traffic",
                "You cannot create a non-public sandbox without secure access enabled",
            ));
        }
        sleep::validate_changes(request.sleep, self.inner.attic.is_there())?;
        check_on_timeout(&self.inner, request.on_timeout)
    }

    /// Refuses a proxy that is where none may be.
    pub(super) async fn check_proxy(&self, network: &NetworkSpec) -> Result<(), Fault> {
        if network.egress_proxy.is_none() {
            return Ok(());
        }
        // Nothing is sealed yet.
        let egress = launch::egress_of(network.clone());
        let checked = self.inner.driver.check_egress(&egress).await;
        checked.map_err(fault::driver)
    }

    async fn make(
        &self,
        principal: &Principal,
        request: CreateSandbox,
    ) -> Result<SandboxView, Fault> {
        let source = self.source(principal, &request).await?;
        self.make_from(principal, request, source).await
    }

    /// As [`Self::make`], from what its template's name stands for.
    pub(super) async fn make_from(
        &self,
        principal: &Principal,
        request: CreateSandbox,
        source: From,
    ) -> Result<SandboxView, Fault> {
        let inner = &self.inner;
        let resources = request.resources.unwrap_or(source.resources);
        let (volumes, pins) = self
            .volumes_of(principal, &request.volumes, &source)
            .await?;
        let wanted = Used::one(&resources);
        let place = place::take(inner, &principal.workspace, wanted).await?;
        let said = inner.tenancy(&principal.workspace).await?.sleep;
        let archive = inner.attic.is_there();
        let sleep = sleep::policy(inner.options.sleep, said, request.sleep, archive);
        let now = Timestamp::now();
        let mut record = Sandbox {
            id: SandboxId::generate(),
            workspace: principal.workspace.clone(),
            template: source.template,
            template_alias: source.template_alias,
            build: source.build,
            state: SandboxState::Creating,
            generation: 1,
            created_at: now,
            started_at: now,
            deadline: lifecycle::deadline_after(now, request.timeout),
            timeout: request.timeout,
            on_timeout: request.on_timeout,
            auto_resume: request.auto_resume,
            sleep,
            sleep_due: None,
            last_snapshot: None,
            resources,
            env: source.env.into_iter().chain(request.env).collect(),
            metadata: request.metadata,
            network: request.network,
            secure: request.secure,
            volumes,
        };
        let mut origin = source.origin;
        // One made ahead has no volumes, and gets none while it runs.
        if let Origin::Layers { spare } = &mut origin
            && inner.options.spares > 0
            && record.volumes.is_empty()
        {
            layers::bring(inner, &source.image.layers).await?;
            let spec = launch::spec(inner, &record, &source.image).await?;
            *spare = inner.spares.take(&spec);
            if let Some(spare) = spare {
                record.id = spare.id.clone();
            }
        }
        // For the id that it has now.
        record.network = hidden::sealed(inner, &record.id, record.network)?;
        let live = Live::new(&self.inner.registry.gates, record, Some(place));
        let (reply, answer) = oneshot::channel();
        let boot = Boot {
            image: source.image,
            origin,
            idempotency_key: request.idempotency_key,
            _volumes: pins,
            reply,
        };
        owner::spawn(inner, Arc::clone(&live), Some(boot));
        let panicked = |_| Fault::new(Code::CreateFailed, "the sandbox could not be created");
        answer.await.map_err(panicked)??;
        Ok(self.view(&live.record()))
    }

    /// As [`Self::make`], at most once per key.
    async fn make_once(
        &self,
        principal: &Principal,
        request: CreateSandbox,
        key: &str,
    ) -> Result<SandboxView, Fault> {
        let entry = IdempotencyEntry {
            workspace: principal.workspace.clone(),
            key: key.to_owned(),
            fingerprint: fingerprint(&request),
            claimed_at: Timestamp::now(),
            outcome: IdempotencyOutcome::InProgress,
        };
        let store = &self.inner.store;
        let claim = || async { store.idempotency_claim(&entry).await.map_err(fault::store) };
        if let Some(known) = claim().await? {
            if known.fingerprint != entry.fingerprint {
                return Err(Fault::new(
                    Code::IdempotencyMismatch,
                    "the idempotency key was used with another request",
                ));
            }
            if let Some(view) = self.known(principal, &known).await? {
                return Ok(view);
            }
            // An earlier server died before it had made the sandbox: nothing of it is left.
            let freed = IdempotencyOutcome::Freed;
            let finish = store.idempotency_finish(&entry.workspace, key, freed);
            finish.await.map_err(fault::store)?;
            if claim().await?.is_some() {
                return Err(in_progress());
            }
        }
        let result = self.make(principal, request).await;
        if result.is_err() {
            // The owner has freed it if it got that far; a second time does no harm.
            let freed = IdempotencyOutcome::Freed;
            let finish = store.idempotency_finish(&entry.workspace, key, freed);
            finish.await.map_err(fault::store)?;
        }
        result
    }

    /// What a claimed key stands for; `None` if the claim led to nothing and can be made again.
    async fn known(
        &self,
        principal: &Principal,
        known: &IdempotencyEntry,
    ) -> Result<Option<SandboxView>, Fault> {
        let before_this_server = known.claimed_at < self.inner.started_at;
        let IdempotencyOutcome::Done { result } = &known.outcome else {
            return if before_this_server {
                Ok(None)
            } else {
                Err(in_progress())
            };
        };
        let id: SandboxId = result.parse().map_err(Fault::internal)?;
        let live = self.inner.registry.get(&id).map(|live| live.record());
        let record = match live {
            Some(record) => Some(record),
            None => self.record_of(&id).await?,
        };
        if let Some(record) = record {
            return match record.state {
                SandboxState::Creating => Err(in_progress()),
                SandboxState::Running { .. }
                | SandboxState::Paused { .. }
                | SandboxState::Hibernating { .. }
                | SandboxState::Hibernated { .. }
                | SandboxState::Waking { .. }
                | SandboxState::Archiving { .. }
                | SandboxState::Archived { .. } => Ok(Some(self.view(&record))),
                SandboxState::Deleting { .. } => Err(ended(&id)),
            };
        }
        debug_assert_eq!(principal.workspace, known.workspace);
        let log = self
            .inner
            .store
            .event_list(&id, 0, 1)
            .await
            .map_err(fault::store)?;
        match log.first() {
            Some(first) if first.kind == "sandbox.created" => Err(ended(&id)),
            Some(_) | None => Ok(None),
        }
    }
}

/// Refuses a timeout that could not be honoured.
pub(super) fn check_on_timeout(inner: &Inner, on_timeout: OnTimeout) -> Result<(), Fault> {
    let needed = match on_timeout {
        OnTimeout::Kill => return Ok(()),
        OnTimeout::Pause { memory: true } => Capability::Checkpoint,
        OnTimeout::Pause { memory: false } => Capability::FilesystemSnapshot,
    };
    match inner.driver.capabilities().why_missing(needed) {
        Some(why) => Err(unsupported("pausing at the timeout", why).with_field("on_timeout")),
        None => Ok(()),
    }
}

fn unsupported(what: &str, why: &str) -> Fault {
    Fault::new(Code::Unsupported, format!("{what} is not supported: {why}"))
}

fn in_progress() -> Fault {
    Fault::new(
        Code::IdempotencyInProgress,
        "the request with this idempotency key is still running",
    )
}

fn ended(id: &SandboxId) -> Fault {
    Fault::new(
        Code::Conflict,
        format!("the sandbox {id} that this idempotency key made has ended; use another key"),
    )
}

/// What makes two requests the same. Within one version of the server; across versions an equal
/// request may be refused as different, which is the safe side.
fn fingerprint(request: &CreateSandbox) -> String {
    let mut plain = request.clone();
    plain.idempotency_key = None;
    hex::encode(Sha256::digest(format!("{plain:?}").as_bytes()))
}
