//! `woodfrog sandbox cp`.

use super::Outcome;
use crate::args::Target;

pub(super) async fn run(_: &str, _: &str, _: Option<&str>, _: &Target) -> Outcome {
    anyhow::bail!("not available yet")
}
