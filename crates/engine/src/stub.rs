//! Stands in until the engine lands on this branch. Not to be merged.
#![allow(clippy::all)]
use bytes::Bytes;
use futures_util::Stream;
use woodfrog_types::event::SandboxEvent;
use woodfrog_types::key::*;
use woodfrog_types::metric::MetricSample;
use woodfrog_types::network::NetworkSpec;
use woodfrog_types::page::*;
use woodfrog_types::sandbox::SandboxFilter;
use woodfrog_types::template::*;
use woodfrog_types::*;

use crate::*;

#[derive(Clone)]
pub struct Engine;
type R<T> = Result<T, Fault>;
fn no<T>() -> R<T> {
    Err(Fault::new(Code::Unsupported, "stub"))
}
#[rustfmt::skip]
impl Engine {
    pub fn ready(&self) -> bool { true }
    pub async fn authenticate(&self, _: &str) -> R<Principal> { no() }
    pub async fn key_create(&self, _: &Principal, _: NewKey) -> R<CreatedKey> { no() }
    pub async fn key_list(&self, _: &Principal) -> R<Vec<ApiKey>> { no() }
    pub async fn key_revoke(&self, _: &Principal, _: &KeyId) -> R<()> { no() }
    pub async fn sandbox_create(&self, _: &Principal, _: CreateSandbox) -> R<SandboxView> { no() }
    pub async fn sandbox_fetch(&self, _: &Principal, _: &SandboxId) -> R<SandboxView> { no() }
    pub async fn sandbox_list(&self, _: &Principal, _: SandboxFilter, _: PageRequest) -> R<Page<SandboxView>> { no() }
    pub async fn sandbox_count(&self, _: &Principal) -> R<u64> { no() }
    pub async fn sandbox_delete(&self, _: &Principal, _: &SandboxId) -> R<()> { no() }
    pub async fn sandbox_deadline(&self, _: &Principal, _: &SandboxId, _: DeadlineChange) -> R<SandboxView> { no() }
    pub async fn sandbox_network(&self, _: &Principal, _: &SandboxId, _: NetworkSpec) -> R<()> { no() }
    pub async fn sandbox_metrics(&self, _: &Principal, _: &SandboxId, _: Option<Timestamp>, _: Option<Timestamp>) -> R<Vec<MetricSample>> { no() }
    pub async fn sandbox_metrics_latest(&self, _: &Principal, _: &[SandboxId]) -> R<Vec<(SandboxId, MetricSample)>> { no() }
    pub async fn sandbox_events(&self, _: &Principal, _: &SandboxId, _: u64, _: usize) -> R<Vec<SandboxEvent>> { no() }
    pub async fn guest(&self, _: &SandboxId) -> R<GuestLease> { no() }
    pub async fn template_request(&self, _: &Principal, _: NewTemplate) -> R<BuildView> { no() }
    pub async fn template_file(&self, _: &Principal, _: &TemplateId, _: &str) -> R<FileSlot> { no() }
    pub async fn template_file_upload(&self, _: &str, _: impl Stream<Item = std::io::Result<Bytes>> + Send) -> R<()> { no() }
    pub async fn template_build(&self, _: &Principal, _: &TemplateId, _: &BuildId, _: StartBuild) -> R<()> { no() }
    pub async fn build_fetch(&self, _: &Principal, _: &TemplateId, _: &BuildId) -> R<BuildView> { no() }
    pub async fn build_log(&self, _: &Principal, _: &BuildId, _: u64, _: usize) -> R<Vec<BuildLogLine>> { no() }
    pub async fn template_resolve(&self, _: &Principal, _: &str) -> R<TemplateView> { no() }
    pub async fn template_list(&self, _: &Principal, _: PageRequest) -> R<Page<TemplateView>> { no() }
    pub async fn template_delete(&self, _: &Principal, _: &str) -> R<()> { no() }
    pub async fn template_tag(&self, _: &Principal, _: &str, _: &[String]) -> R<BuildView> { no() }
    pub async fn template_untag(&self, _: &Principal, _: &str, _: &[String]) -> R<()> { no() }
    pub async fn build_list(&self, _: &Principal, _: &TemplateId, _: PageRequest) -> R<Page<Build>> { no() }
}
