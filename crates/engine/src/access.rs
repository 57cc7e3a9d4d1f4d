//! The data plane's way into a sandbox.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use woodfrog_guest_client::GuestClient;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::{SandboxId, WorkspaceId};

use crate::life::Life;
use crate::sandbox::gate::{Attached, Gate, Lease};

/// What the gateway must know to let a request in.
#[derive(Debug, Clone)]
pub struct SandboxAccess {
    pub id: SandboxId,
    pub workspace: WorkspaceId,
    pub secure: bool,
    pub access_token: String,
    pub traffic_token: Option<String>,
    pub network: NetworkSpec,
    /// Whose files and processes a request means that names no user.
    pub default_user: String,
    pub default_workdir: Option<String>,
    /// Whether it runs now. Always [`Reach::Awake`] but for [`crate::Engine::peek`].
    pub reach: Reach,
}

/// What it takes to reach a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It runs.
    Awake,
    /// It dozes: any access wakes it, and its client need not know that it slept.
    Dozing,
    /// It was put to sleep through E2B, or by its timeout: any access wakes it (`auto_resume`),
    /// but to its client it is paused.
    Resumable,
    /// As before, but only `connect` and `resume` wake it.
    Held,
}

impl Reach {
    /// Whether the sandbox runs as far as its client knows.
    pub const fn runs(self) -> bool {
        match self {
            Self::Awake | Self::Dozing => true,
            Self::Resumable | Self::Held => false,
        }
    }
}

/// A running sandbox's guest, held for one operation. While it is held the sandbox counts as
/// active, unless it is [quiet](GuestLease::quiet). Streams select on [`GuestLease::ended`] and
/// abort when it resolves.
#[derive(Clone)]
pub struct GuestLease {
    client: GuestClient,
    life: Arc<Life>,
    /// `None` where nobody counts uses.
    gate: Option<Arc<Gate>>,
    /// `None` for a quiet one.
    lease: Option<Arc<Lease>>,
}

impl GuestLease {
    /// Wraps a client of a running sandbox whose use nobody counts.
    pub fn new(client: GuestClient, ended: CancellationToken) -> Self {
        Self::living(client, Arc::new(Life::until(ended)))
    }

    /// As [`GuestLease::new`], for processes that may begin anew.
    pub fn living(client: GuestClient, life: Arc<Life>) -> Self {
        Self {
            client,
            life,
            gate: None,
            lease: None,
        }
    }

    pub(crate) fn counted(client: GuestClient, lease: Lease) -> Self {
        Self {
            client,
            life: Arc::clone(&lease.life),
            gate: Some(Arc::clone(&lease.gate)),
            lease: Some(Arc::new(lease)),
        }
    }

    /// Resolves once the sandbox is ending, or is paused through a face whose clients expect their
    /// streams to end: what streams from it stops without a final frame.
    pub async fn ended(&self) {
        self.life.over().await;
    }

    /// Why the processes that were there when this was given are gone, though the sandbox runs on;
    /// `None` if they may still be there. Known once [`GuestLease::ended`] resolves.
    pub fn began_anew(&self) -> Option<&'static str> {
        self.life.anew()
    }

    /// The same guest for a stream on which nothing need move: held so, it does not keep the
    /// sandbox awake. [`GuestLease::touch`] says when something moves.
    #[must_use]
    pub fn quiet(&self) -> Self {
        Self {
            lease: None,
            ..self.clone()
        }
    }

    /// Something moved on a stream: counts as an operation that is over.
    pub fn touch(&self) {
        if let Some(gate) = &self.gate {
            gate.touch();
        }
    }

    /// Resolves when the sandbox runs, at once if it does now. Does not wake it: for streams whose
    /// connection broke since the sandbox fell asleep under them. Never resolves for one that
    /// ends: select with [`GuestLease::ended`].
    pub async fn awake(&self) {
        if let Some(gate) = &self.gate {
            gate.opened().await;
        }
    }

    /// Resolves when connections to the guest must go though the sandbox lives on: it falls asleep
    /// or is being saved. A stream drops its connection, and takes it up again at its offset when
    /// the sandbox is [awake](GuestLease::awake).
    pub async fn closing(&self) {
        match &self.gate {
            Some(gate) => gate.closed().await,
            None => std::future::pending().await,
        }
    }

    /// Counts a stream's connection: a sandbox is not saved before what this gives is dropped.
    /// `None` if connections must go now.
    pub fn connection(&self) -> Option<Attachment> {
        match &self.gate {
            Some(gate) => gate.attach().map(|attached| Attachment(Some(attached))),
            None => Some(Attachment(None)),
        }
    }

    /// The lease as one that keeps the sandbox awake; `None` if it sleeps.
    pub fn renewed(&self) -> Option<Self> {
        let lease = match &self.gate {
            Some(gate) => Some(Arc::new(gate.enter()?)),
            None => None,
        };
        Some(Self {
            lease,
            ..self.clone()
        })
    }

    /// Whether it keeps the sandbox awake.
    pub fn is_quiet(&self) -> bool {
        self.lease.is_none()
    }
}

/// A stream's connection to a guest; see [`GuestLease::connection`].
#[derive(Debug)]
pub struct Attachment(#[expect(dead_code, reason = "held for its drop")] Option<Attached>);

impl std::ops::Deref for GuestLease {
    type Target = GuestClient;

    fn deref(&self) -> &GuestClient {
        &self.client
    }
}
