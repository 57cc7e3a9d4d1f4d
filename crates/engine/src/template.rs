//! Templates: names for images, and the builds that make them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use tokio::sync::Semaphore;
use woodfrog_types::template::{Build, BuildState, BuiltImage, SecurityOptions};
use woodfrog_types::{BuildId, Fault, Timestamp};

use crate::fault;
use crate::inner::Inner;

mod api;
mod base;
mod build;
mod files;
mod history;
mod log;
mod resolve;
mod security;
mod steps;
mod tags;

use files::Upload;

/// Builds under way.
pub(crate) struct Builds {
    turns: Semaphore,
    /// One-time tokens of uploads.
    uploads: Mutex<HashMap<String, Upload>>,
    /// The build of the server's base image, while one is under way.
    base: tokio::sync::Mutex<Option<BuildId>>,
}

impl Builds {
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            turns: Semaphore::new(at_once.max(1)),
            uploads: Mutex::default(),
            base: tokio::sync::Mutex::default(),
        }
    }
}

/// What every image has, where the real one is not known any more.
pub(crate) fn plain_image() -> BuiltImage {
    BuiltImage {
        layers: Vec::new(),
        env: BTreeMap::new(),
        user: "user".to_owned(),
        workdir: None,
        start_cmd: None,
        ready_cmd: None,
        security: SecurityOptions::default(),
    }
}

/// Builds that a server before left unfinished cannot go on: their sandboxes are gone.
pub(crate) async fn end_unfinished(inner: &Inner) -> Result<(), Fault> {
    let unfinished = inner.store.build_unfinished().await.map_err(fault::store)?;
    for build in unfinished {
        if build.state == BuildState::Waiting {
            // Its instructions may still come.
            continue;
        }
        let ended = Build {
            state: BuildState::Failed {
                message: "the server was restarted during the build; start it again".to_owned(),
                step: None,
            },
            finished_at: Some(Timestamp::now()),
            ..build
        };
        let stored = inner.store.build_update(&ended).await;
        stored.map_err(fault::store)?;
    }
    Ok(())
}
