//! What faces ask of the files that runs left, and the removal of runs with them.

use std::ops::Range;

use woodfrog_artifacts::{Content, Files, FilesError};
use woodfrog_store::{RunStore as _, StoreError};
use woodfrog_types::artifact::{Artifact, ArtifactFilter, Review, ReviewState};
use woodfrog_types::key::Principal;
use woodfrog_types::page::{Page, PageRequest};
use woodfrog_types::workspace::Role;
use woodfrog_types::{ArtifactId, Code, Fault, RunId, Timestamp, WorkspaceId};

use crate::service::{Inner, Runs, fault};

impl Runs {
    /// Artifacts of the workspace that match, newest first.
    pub async fn artifacts(
        &self,
        principal: &Principal,
        filter: &ArtifactFilter,
        page: &PageRequest,
    ) -> Result<Page<Artifact>, Fault> {
        let store = &self.inner.store;
        let listed = store.artifact_list(&principal.workspace, filter, page);
        listed.await.map_err(fault)
    }

    /// One artifact of the workspace. `ArtifactNotFound` if it is another's.
    pub async fn artifact(
        &self,
        principal: &Principal,
        id: &ArtifactId,
    ) -> Result<Artifact, Fault> {
        let found = self.inner.store.artifact_fetch(id).await.map_err(fault)?;
        let mine = |artifact: &Artifact| artifact.workspace == principal.workspace;
        found.filter(mine).ok_or_else(|| not_found(id.as_str()))
    }

    /// A part of its bytes, as they are read.
    pub async fn artifact_content(
        &self,
        artifact: &Artifact,
        part: Range<u64>,
    ) -> Result<Content, Fault> {
        if part.is_empty() {
            return Ok(Box::pin(futures_util::stream::empty()));
        }
        let place = place(artifact);
        let content = self.inner.files()?.get(place, part).await;
        content.map_err(|error| match error {
            // Of a server that keeps its files elsewhere, or somebody removed it just now.
            FilesError::NotFound => {
                let text = "the content of the artifact is not on this server";
                Fault::new(Code::ArtifactNotFound, text)
            }
            error @ (FilesError::Source(_) | FilesError::Store(_)) => Fault::internal(error),
        })
    }

    /// Says what an admin thinks of it; whatever they thought before.
    pub async fn artifact_review(
        &self,
        principal: &Principal,
        id: &ArtifactId,
        state: ReviewState,
    ) -> Result<Artifact, Fault> {
        self.artifact(principal, id).await?;
        let review = Review {
            state,
            by: principal.user.clone(),
            at: Timestamp::now(),
        };
        let reviewed = self.inner.store.artifact_review(id, &review).await;
        reviewed.map_err(|error| match error {
            StoreError::NotFound { .. } => not_found(id.as_str()),
            error => fault(error),
        })
    }

    /// Removes it with its bytes.
    pub async fn artifact_delete(
        &self,
        principal: &Principal,
        id: &ArtifactId,
    ) -> Result<(), Fault> {
        let artifact = self.artifact(principal, id).await?;
        self.inner.remove_artifact(&artifact).await
    }

    /// Removes a run that is over, with its log and artifacts; what it used stays in the books.
    /// Its creator may, and admins.
    pub async fn delete(&self, principal: &Principal, id: &RunId) -> Result<(), Fault> {
        let view = self.show(principal, id).await?;
        if view.run.created_by != principal.user && principal.role < Role::Admin {
            let text = "Unauthorized: only its creator, admins and owners can delete a run";
            return Err(Fault::new(Code::PermissionDenied, text));
        }
        if !view.run.state.is_terminal() {
            let text = "the run is not over; cancel it first";
            return Err(Fault::new(Code::Conflict, text));
        }
        if !view.tracked {
            self.inner.memory.run_remove(id).await.map_err(fault)?;
            return Ok(());
        }
        self.inner.remove_run(&view.run.workspace, id).await
    }
}

impl Inner {
    /// Where artifacts are kept.
    pub(crate) fn files(&self) -> Result<&Files, Fault> {
        self.files.as_ref().ok_or_else(|| {
            let text = "artifacts are not kept on this server";
            Fault::new(Code::Unsupported, text)
        })
    }

    /// Removes an artifact. The bytes first: what fails can be tried again for as long as there is a
    /// record.
    pub(crate) async fn remove_artifact(&self, artifact: &Artifact) -> Result<(), Fault> {
        if let Some(files) = &self.files {
            let deleted = files.delete(place(artifact)).await;
            deleted.map_err(Fault::internal)?;
        }
        let removed = self.store.artifact_remove(&artifact.id).await;
        removed.map(drop).map_err(fault)
    }

    /// Removes the files of a run and then itself, so that whoever is interrupted finds it again.
    pub(crate) async fn remove_run(
        &self,
        workspace: &WorkspaceId,
        id: &RunId,
    ) -> Result<(), Fault> {
        if let Some(files) = &self.files {
            let deleted = files.delete_run(workspace.as_str(), id.as_str()).await;
            deleted.map_err(Fault::internal)?;
        }
        self.store.run_remove(id).await.map_err(fault)?;
        Ok(())
    }
}

fn place(artifact: &Artifact) -> [&str; 3] {
    let Artifact {
        workspace, run, id, ..
    } = artifact;
    [workspace.as_str(), run.as_str(), id.as_str()]
}

/// As for one of another workspace.
pub fn not_found(id: &str) -> Fault {
    let shown: String = id.chars().take(64).collect();
    Fault::new(
        Code::ArtifactNotFound,
        format!("artifact `{shown}` does not exist, or belongs to another workspace"),
    )
}
