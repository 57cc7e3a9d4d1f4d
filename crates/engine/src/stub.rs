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

type R<T> = Result<T, Fault>;
fn no<T>() -> R<T> {
    Err(Fault::new(Code::Unsupported, "stub"))
}
#[rustfmt::skip]
impl Engine {
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
    pub async fn template_import(&self, _: &Principal, _: &str, _: ImportSource) -> R<BuildView> { no() }
}
