//! Following a build until it ends.

use std::time::Duration;

use woodfrog_wire::native::template::{Build, BuildLog};

use super::Outcome;
use crate::args::Target;
use crate::client::{Client, ClientError};
use crate::output;

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(300);
/// Lines that are fetched at a time.
const LINES: usize = 1000;
/// How often in a row the server may be out of reach: it may be restarted during a build.
const LOST_MAX: u32 = 100;

/// Prints the log of a build to standard error as it grows; ends with the build. One that is ready
/// already has nothing more to tell.
pub(super) async fn follow(client: &Client, mut build: Build) -> Result<Build, ClientError> {
    if build.status == "ready" {
        return Ok(build);
    }
    let (template, id) = (build.template_id.clone(), build.id.clone());
    let route = ["templates", template.as_str(), "builds", id.as_str()];
    let mut next = 0;
    let mut lost = 0;
    loop {
        // The state is read before the log: a final state comes with the whole log.
        let over = !matches!(build.status.as_str(), "waiting" | "building");
        match print_log(client, &route, &mut next).await {
            Ok(()) if over => return Ok(build),
            Ok(()) => lost = 0,
            Err(error) => tolerate(error, &mut lost)?,
        }
        tokio::time::sleep(PAUSE).await;
        match client.json(client.get(&route)).await {
            Ok(seen) => build = seen,
            Err(error) => tolerate(error, &mut lost)?,
        }
    }
}

fn tolerate(error: ClientError, lost: &mut u32) -> Result<(), ClientError> {
    *lost += 1;
    match error {
        ClientError::Unreachable { .. } | ClientError::Broken(_) if *lost < LOST_MAX => Ok(()),
        error => Err(error),
    }
}

async fn print_log(client: &Client, build: &[&str], next: &mut u64) -> Result<(), ClientError> {
    loop {
        let mut url = client.route(&[build, &["log"]].concat());
        url.query_pairs_mut()
            .append_pair("after", &next.to_string())
            .append_pair("limit", &LINES.to_string());
        let log: BuildLog = client
            .json(client.request(reqwest::Method::GET, url))
            .await?;
        for line in &log.items {
            let step = line.step.as_deref().map(|step| format!("[{step}] "));
            // Some lines name their step themselves.
            let step = step.filter(|step| !line.message.starts_with(step.as_str()));
            output::note(&format!("{}{}", step.unwrap_or_default(), line.message));
        }
        *next = log.next;
        if log.items.len() < LINES {
            return Ok(());
        }
    }
}

/// Prints how a build ended, and gives the exit code for it.
pub(super) fn conclude(name: &str, build: &Build, target: &Target) -> Outcome {
    if target.json {
        output::json(build)?;
    }
    if build.status == "ready" {
        if !target.json {
            output::line(&format!("{name} is ready"))?;
        }
        return Ok(0);
    }
    let reason = match &build.error {
        Some(error) => match &error.step {
            Some(step) => format!("{} (step {step})", error.message),
            None => error.message.clone(),
        },
        None => format!("it is {}", build.status),
    };
    output::note(&format!("error: {name} could not be built: {reason}"));
    Ok(super::EXIT_FAILURE)
}
