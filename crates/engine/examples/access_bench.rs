//! What finding out who asks, and counting it, adds to a request.
//!
//! `cargo run --release -p woodfrog-engine --example access_bench`
#![allow(
    clippy::allow_attributes,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "an example"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use woodfrog_engine::images::{CopyRequest, ProgressSink};
use woodfrog_engine::{Engine, ImageError, Images, ImportSource, NewKey, Options, Ports};
use woodfrog_sandbox::fake::FakeDriver;
use woodfrog_store::memory::MemoryStore;
use woodfrog_types::template::BuiltImage;
use woodfrog_types::workspace::UserId;

const REQUESTS: usize = 200_000;
/// What the two together may take.
const BUDGET: Duration = Duration::from_micros(100);

struct NoImages;

fn none() -> ImageError {
    ImageError::Rejected("none here".to_owned())
}

#[async_trait]
impl Images for NoImages {
    fn paths(&self, _: &[String]) -> Result<Vec<PathBuf>, ImageError> {
        Ok(Vec::new())
    }

    async fn base(&self, _: ProgressSink) -> Result<BuiltImage, ImageError> {
        Err(none())
    }

    async fn import(&self, _: ImportSource, _: ProgressSink) -> Result<BuiltImage, ImageError> {
        Err(none())
    }

    async fn commit(&self, _: &Path) -> Result<String, ImageError> {
        Err(none())
    }

    async fn copy(&self, _: CopyRequest) -> Result<String, ImageError> {
        Err(none())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new(dir.path());
    options.limits.user_requests_per_minute = Some(1_000_000);
    options.limits.requests_per_minute = Some(1_000_000);
    let ports = Ports {
        store: Arc::new(MemoryStore::new()),
        driver: Arc::new(FakeDriver::new(dir.path().join("uppers"))),
        images: Arc::new(NoImages),
        archive: None,
    };
    let engine = Engine::start(ports, options).await.unwrap();
    let first = engine.bootstrap_admin_key().await.unwrap().unwrap();
    let admin = format!("wf_{}", first.secret_hex);
    let admin = engine.authenticate(&admin).await.unwrap();
    let ann = UserId::parse("ann").unwrap();
    let team = engine.workspace_create(&admin, "team", Some(ann.clone()));
    let wanted = NewKey {
        user: Some(ann),
        ..NewKey::new("bench", team.await.unwrap().id)
    };
    let key = engine.key_create(&admin, wanted).await.unwrap();
    let secret = format!("wf_{}", key.secret_hex);

    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let began = Instant::now();
        let principal = engine.authenticate_in(&secret, None).await.unwrap();
        let counted = engine.count_request(&principal).await.unwrap();
        assert!(counted.unwrap().verdict.admitted);
        times.push(began.elapsed());
    }
    times.sort();
    let at = |share: usize| times[times.len() * share / 1000];
    let (p50, p99, last) = (at(500), at(990), at(999));
    println!("auth + rate limit: p50 {p50:?}, p99 {p99:?}, p99.9 {last:?} (budget {BUDGET:?})");
    engine.shutdown().await;
    assert!(p99 <= BUDGET, "p99 is over its budget");
}
