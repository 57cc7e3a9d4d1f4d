//! Uploads of file archives for COPY steps: kept per workspace under the hash that names them.

use std::io;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use woodfrog_types::key::Principal;
use woodfrog_types::template::Template;
use woodfrog_types::{Code, Fault, TemplateId};

use crate::engine::Engine;
use crate::inner::Inner;
use crate::view::FileSlot;

/// How long a token waits for its upload.
const TOKEN_TTL: Duration = Duration::from_secs(3600);
/// Tokens that wait at once.
const TOKENS_MAX: usize = 4096;

/// An upload that may come.
pub(crate) struct Upload {
    path: PathBuf,
    until: Instant,
}

/// Where the archive of that hash is, once uploaded.
pub(super) fn archive_path(
    inner: &Inner,
    template: &Template,
    files_hash: &str,
) -> Result<PathBuf, Fault> {
    let valid = files_hash.len() == 64
        && files_hash
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !valid {
        return Err(Fault::invalid(
            "files_hash",
            "a files hash is 64 lowercase hexadecimal digits",
        ));
    }
    let files = inner.options.data_dir.join("files");
    Ok(files.join(owner(template)).join(files_hash))
}

/// Whose archives and cached layers a build of this template may use.
pub(super) fn owner(template: &Template) -> &str {
    template.workspace.as_ref().map_or("server", AsRef::as_ref)
}

impl Engine {
    /// Whether the archive of that hash is there; if not, a token to upload it with.
    pub async fn template_file(
        &self,
        principal: &Principal,
        template: &TemplateId,
        files_hash: &str,
    ) -> Result<FileSlot, Fault> {
        let template = self.template_find(principal, template.as_str()).await?;
        let path = archive_path(&self.inner, &template, files_hash)?;
        if tokio::fs::try_exists(&path)
            .await
            .map_err(Fault::internal)?
        {
            return Ok(FileSlot::Present);
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| Fault::internal(error.to_string()))?;
        let token = hex::encode(random);
        let now = Instant::now();
        let uploads = &self.inner.builds.uploads;
        let mut uploads = uploads.lock().unwrap_or_else(PoisonError::into_inner);
        uploads.retain(|_, upload| upload.until > now);
        if uploads.len() >= TOKENS_MAX {
            return Err(Fault::new(
                Code::RateLimited,
                "too many uploads are waiting; try again later",
            ));
        }
        let until = now + TOKEN_TTL;
        uploads.insert(token.clone(), Upload { path, until });
        Ok(FileSlot::Upload { token })
    }

    /// Stores an archive. The token is used up, also by an upload that fails.
    pub async fn template_file_upload(
        &self,
        token: &str,
        body: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<(), Fault> {
        self.inner.accepting()?;
        let upload = {
            let uploads = &self.inner.builds.uploads;
            let mut uploads = uploads.lock().unwrap_or_else(PoisonError::into_inner);
            uploads.remove(token)
        };
        let upload = upload
            .filter(|upload| upload.until > Instant::now())
            .ok_or_else(|| Fault::new(Code::NotFound, "the upload token is not valid"))?;
        // Beside its final place, under the token's own name: two uploads never share a file.
        let partial = upload.path.with_extension(token);
        let result = self.receive(&upload.path, &partial, body).await;
        if result.is_err() {
            // Nothing to do about a file that cannot be removed either.
            let _ = tokio::fs::remove_file(&partial).await;
        }
        result
    }

    async fn receive(
        &self,
        path: &std::path::Path,
        partial: &std::path::Path,
        body: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<(), Fault> {
        if let Some(dir) = path.parent() {
            tokio::fs::create_dir_all(dir).await.map_err(write_failed)?;
        }
        let mut file = tokio::fs::File::create(partial)
            .await
            .map_err(write_failed)?;
        let max = self.inner.options.upload_bytes_max;
        let mut received = 0_u64;
        let mut body = std::pin::pin!(body);
        while let Some(chunk) = body.next().await {
            let chunk = chunk.map_err(|error| {
                Fault::new(Code::InvalidArgument, "the upload broke off").because(error)
            })?;
            received = received.saturating_add(chunk.len() as u64);
            if received > max {
                return Err(Fault::new(
                    Code::TooLarge,
                    format!("an archive has at most {max} bytes"),
                ));
            }
            file.write_all(&chunk).await.map_err(write_failed)?;
        }
        file.sync_all().await.map_err(write_failed)?;
        tokio::fs::rename(partial, path).await.map_err(write_failed)
    }
}

fn write_failed(error: io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Fault::new(Code::NoSpace, "the server's disk is full").because(error)
        }
        _ => Fault::internal(error),
    }
}
