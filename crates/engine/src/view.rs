//! What callers get to see.

use woodfrog_types::key::ApiKey;
use woodfrog_types::sandbox::Sandbox;
use woodfrog_types::template::{Build, Template};

/// A sandbox and what is derived from it.
#[derive(Debug, Clone)]
pub struct SandboxView {
    pub sandbox: Sandbox,
    /// Opens the guest. Derived from the id and the server's secret: valid for the sandbox's
    /// whole life.
    pub access_token: String,
    /// Opens ports inside where public traffic is off; `None` where it is on.
    pub traffic_token: Option<String>,
}

/// A template with the build that its default tag names.
#[derive(Debug, Clone)]
pub struct TemplateView {
    pub template: Template,
    pub current: Option<Build>,
}

/// A build and the template it belongs to.
#[derive(Debug, Clone)]
pub struct BuildView {
    pub template: Template,
    pub build: Build,
}

/// A new key: the only time its secret is seen.
#[derive(Debug, Clone)]
pub struct CreatedKey {
    pub key: ApiKey,
    /// 64 lowercase hex digits. Presented as `wf_<hex>` or `e2b_<hex>`; both are the same key.
    pub secret_hex: String,
}

/// Where a build's file archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSlot {
    /// It was uploaded before.
    Present,
    /// Upload it with this one-time token.
    Upload { token: String },
}
