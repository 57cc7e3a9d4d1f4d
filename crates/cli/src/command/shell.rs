//! `woodfrog sandbox shell`.

use super::Outcome;
use crate::args::Target;

pub(super) async fn run(_: &str, _: Option<String>, _: Option<String>, _: &Target) -> Outcome {
    anyhow::bail!("not available yet")
}
