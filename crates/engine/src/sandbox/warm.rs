//! Warm templates: a template that has a start command is started once, and what it was then is
//! what every later sandbox of it begins with.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use woodfrog_sandbox::{Capability, CheckpointSpec, Then};
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::sandbox::{OnTimeout, Resources, Sandbox, SandboxState};
use woodfrog_types::sleep::SleepPolicy;
use woodfrog_types::snapshot::{Snapshot, SnapshotContent, SnapshotPurpose, SnapshotState};
use woodfrog_types::template::{BuiltImage, Template};
use woodfrog_types::{BuildId, Fault, SandboxId, SnapshotId, Timestamp, WorkspaceId};

use crate::inner::Inner;
use crate::sandbox::launch::{self, Origin};
use crate::sandbox::shelf;
use crate::{fault, guest, tasks};

#[derive(Debug, Clone)]
enum Known {
    /// Under way, or it failed: sandboxes of it boot. A start of the server tries again.
    No,
    Ready(SnapshotId),
}

/// What is known of builds that were to be started.
#[derive(Debug, Default)]
pub(crate) struct Warm(Mutex<HashMap<BuildId, Known>>);

impl Warm {
    fn get(&self, build: &BuildId) -> Option<Known> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(build).cloned()
    }

    fn set(&self, build: BuildId, state: Known) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(build, state);
    }

    /// Claims the making of it; `false` if it was made or tried before.
    fn claim(&self, build: BuildId) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = !known.contains_key(&build);
        known.entry(build).or_insert(Known::No);
        fresh
    }

    /// Sandboxes of this build boot from now on.
    pub(crate) fn give_up(&self, build: BuildId) {
        self.set(build, Known::No);
    }

    /// Remembers those that a server before made.
    pub(crate) fn remember<'a>(&self, snapshots: impl Iterator<Item = &'a Snapshot>) {
        for snapshot in snapshots {
            if let (SnapshotPurpose::Warm { build }, SnapshotState::Ready) =
                (&snapshot.purpose, &snapshot.state)
            {
                self.set(*build, Known::Ready(snapshot.id.clone()));
            }
        }
    }
}

/// What a sandbox of this build begins with, if it was started before; begins to start it if not.
pub(crate) async fn origin(
    inner: &Arc<Inner>,
    template: &Template,
    build: BuildId,
    image: &BuiltImage,
    resources: Option<Resources>,
) -> Origin {
    let capabilities = inner.driver.capabilities();
    let able = inner.options.warm
        && image.start_cmd.is_some()
        && capabilities.why_missing(Capability::Checkpoint).is_none();
    if !able || resources.is_some_and(|wanted| wanted != template.resources) {
        return Origin::Layers { spare: None };
    }
    match inner.warm.get(&build) {
        Some(Known::Ready(id)) => match shelf::take(inner, &id).await {
            Ok((snapshot, pin)) if snapshot.resources == template.resources => Origin::Snapshot {
                snapshot: snapshot.id,
                content: SnapshotContent::Memory,
                warm: true,
                _pin: pin,
            },
            Ok(_) | Err(_) => Origin::Layers { spare: None },
        },
        Some(Known::No) => Origin::Layers { spare: None },
        None => {
            begin(inner, template, build, image);
            Origin::Layers { spare: None }
        }
    }
}

fn begin(inner: &Arc<Inner>, template: &Template, build: BuildId, image: &BuiltImage) {
    if !inner.warm.claim(build) {
        return;
    }
    let stand_in = stand_in(template, build);
    let (shared, image) = (Arc::clone(inner), image.clone());
    tasks::spawn(&inner.tasks, "warm template", async move {
        let inner = shared;
        let made = tokio::select! {
            () = inner.stopping.cancelled() => Err(fault::stopping()),
            made = make(&inner, &stand_in, &image) => made,
        };
        // Whatever there still is of it.
        if let Err(fault) = launch::destroy(&inner, &stand_in.id).await {
            tracing::warn!(sandbox = %stand_in.id, error = &fault as &dyn std::error::Error, "what a template was started in could not be removed");
        }
        match made {
            Ok(snapshot) => {
                tracing::info!(%build, %snapshot, "a template was started; its sandboxes begin there");
                inner.warm.set(build, Known::Ready(snapshot));
            }
            Err(fault) => {
                tracing::warn!(%build, error = &fault as &dyn std::error::Error, "a template could not be started ahead; its sandboxes boot");
            }
        }
    });
}

/// Whom the template is started for: nobody yet.
fn stand_in(template: &Template, build: BuildId) -> Sandbox {
    let now = Timestamp::now();
    let everybody = WorkspaceId::default_workspace;
    Sandbox {
        id: SandboxId::generate(),
        workspace: template.workspace.clone().unwrap_or_else(everybody),
        template: template.id.clone(),
        template_alias: Some(template.name.clone()),
        build,
        state: SandboxState::Creating,
        generation: 1,
        created_at: now,
        started_at: now,
        deadline: None,
        timeout: None,
        on_timeout: OnTimeout::Kill,
        auto_resume: false,
        sleep: SleepPolicy::NEVER,
        sleep_due: None,
        last_snapshot: None,
        resources: template.resources,
        env: BTreeMap::new(),
        metadata: BTreeMap::new(),
        network: NetworkSpec::default(),
        secure: true,
        volumes: Vec::new(),
    }
}

async fn make(inner: &Inner, sandbox: &Sandbox, image: &BuiltImage) -> Result<SnapshotId, Fault> {
    let used = inner.layer_uses.begin(&*inner.images);
    let spec = launch::spec(inner, sandbox, image).await?;
    inner.driver.launch(spec).await.map_err(fault::driver)?;
    drop(used);
    guest::configure(inner, sandbox, image).await?;
    guest::start_services(inner, &sandbox.id, image).await?;
    let build = sandbox.build;
    let content = SnapshotContent::Memory;
    let draft = shelf::draft(inner, sandbox, content, SnapshotPurpose::Warm { build });
    let intent = inner.store.snapshot_insert(&draft).await;
    intent.map_err(fault::store)?;
    let checkpoint = CheckpointSpec {
        snapshot: draft.id.clone(),
        parent: None,
        content,
        then: Then::Stop,
        timeout: inner.options.checkpoint_timeout,
    };
    let stored = match inner.driver.checkpoint(&sandbox.id, checkpoint).await {
        Ok(done) => {
            let ready = shelf::ready(&draft, done.size);
            let stored = inner.store.snapshot_update(&ready).await;
            stored.map_err(fault::store)
        }
        Err(error) => Err(fault::driver(error)),
    };
    if stored.is_err() {
        shelf::discard(inner, &draft.id).await;
    }
    stored.map(|()| draft.id)
}

/// Removes what was made of a template that is gone.
pub(crate) async fn forget(inner: &Inner, template: &Template) {
    let snapshots = match inner.store.snapshot_all().await {
        Ok(snapshots) => snapshots,
        Err(error) => {
            tracing::warn!(%error, "snapshots cannot be listed");
            return;
        }
    };
    for snapshot in snapshots {
        if let SnapshotPurpose::Warm { build } = snapshot.purpose
            && snapshot.template == template.id
        {
            inner.warm.give_up(build);
            shelf::discard(inner, &snapshot.id).await;
        }
    }
}
