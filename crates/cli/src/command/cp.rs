//! `woodfrog sandbox cp`: one file, streamed.

mod paths;

use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Body, Method, Url};
use tokio_util::io::ReaderStream;
use woodfrog_wire::native::file::Entry;

use super::{Outcome, Usage, stdin};
use crate::args::Target;
use crate::client::{Client, ClientError};
use crate::output;
use paths::{Local, Plan, Remote};

/// Bytes that are read from a file at a time.
const CHUNK: usize = 256 * 1024;

pub(super) async fn run(from: &str, to: &str, user: Option<&str>, target: &Target) -> Outcome {
    let plan = Plan::parse(from, to)?;
    let client = Client::new(target)?;
    match plan {
        Plan::Upload(local, remote) => {
            let entry = upload(&client, &local, &remote, user).await?;
            if target.json {
                output::json(&entry)?;
            }
        }
        Plan::Download(remote, local) => {
            let bytes = download(&client, &remote, &local, user).await?;
            if target.json {
                output::json(&serde_json::json!({ "bytes": bytes }))?;
            }
        }
    }
    Ok(0)
}

fn content(client: &Client, remote: &Remote, path: &str, user: Option<&str>) -> Url {
    let mut url = client.route(&["sandboxes", &remote.sandbox, "files", "content"]);
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("path", path);
        if let Some(user) = user {
            query.append_pair("user", user);
        }
    }
    url
}

async fn upload(
    client: &Client,
    local: &Local,
    remote: &Remote,
    user: Option<&str>,
) -> anyhow::Result<Entry> {
    let path = remote.path_for(local)?;
    let mut url = content(client, remote, &path, user);
    let (request, bar) = match local {
        Local::Standard => {
            let bar = bar(None);
            let body = Body::wrap_stream(counted(stdin::chunks(), bar.clone()));
            (client.request(Method::PUT, url).body(body), bar)
        }
        Local::File(file) => {
            let shown = file.display();
            let opened = tokio::fs::File::open(file).await;
            let opened = opened.with_context(|| format!("open {shown}"))?;
            let about = opened.metadata().await?;
            if about.is_dir() {
                let message = format!("{shown} is a directory; only files are copied");
                return Err(Usage(message).into());
            }
            let mode = format!("{:o}", about.permissions().mode() & 0o777);
            url.query_pairs_mut().append_pair("mode", &mode);
            let request = client.request(Method::PUT, url);
            // A pipe or a device has no length.
            let length = about.is_file().then_some(about.len());
            let request = match length {
                Some(length) => request.header("content-length", length),
                None => request,
            };
            let bar = bar(length);
            let chunks = ReaderStream::with_capacity(opened, CHUNK);
            let body = Body::wrap_stream(counted(chunks, bar.clone()));
            (request.body(body), bar)
        }
    };
    let answer = client.upload(request).await;
    bar.finish_and_clear();
    let body = answer?.bytes().await.map_err(ClientError::Broken)?;
    Ok(serde_json::from_slice(&body).map_err(ClientError::Malformed)?)
}

/// Returns the bytes that came. A file appears only when all of it is there.
async fn download(
    client: &Client,
    remote: &Remote,
    local: &Local,
    user: Option<&str>,
) -> anyhow::Result<u64> {
    let path = remote.file_path()?;
    let url = content(client, remote, path, user);
    let answer = client.send(client.request(Method::GET, url)).await?;
    let bar = bar(answer.content_length());
    let chunks = answer.bytes_stream().map_err(ClientError::Broken);
    let chunks = counted(chunks, bar.clone());
    let received = match local {
        Local::Standard => receive(chunks, &mut io::stdout().lock()).await,
        Local::File(file) => {
            let wanted = if file.is_dir() {
                file.join(remote.file_name()?)
            } else {
                file.clone()
            };
            receive_file(chunks, &wanted).await
        }
    };
    bar.finish_and_clear();
    received
}

async fn receive(
    chunks: impl Stream<Item = Result<Bytes, ClientError>>,
    out: &mut impl Write,
) -> anyhow::Result<u64> {
    let mut chunks = std::pin::pin!(chunks);
    let mut count = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        out.write_all(&chunk)?;
        count += chunk.len() as u64;
    }
    out.flush()?;
    Ok(count)
}

async fn receive_file(
    chunks: impl Stream<Item = Result<Bytes, ClientError>>,
    wanted: &Path,
) -> anyhow::Result<u64> {
    let cannot = || format!("write {}", wanted.display());
    let known = std::fs::metadata(wanted).ok();
    if known.as_ref().is_some_and(|about| !about.is_file()) {
        // A device or a pipe: written to, never replaced.
        let mut out = std::fs::File::options()
            .write(true)
            .open(wanted)
            .with_context(cannot)?;
        return receive(chunks, &mut out).await;
    }
    let folder = match wanted.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mode = known.map_or(0o644, |about| about.permissions().mode() & 0o777);
    let mut part = tempfile::Builder::new()
        .prefix(".woodfrog-")
        .permissions(std::fs::Permissions::from_mode(mode))
        .tempfile_in(folder)
        .with_context(cannot)?;
    let count = receive(chunks, part.as_file_mut()).await?;
    part.persist(wanted)
        .map_err(|error| error.error)
        .with_context(cannot)?;
    Ok(count)
}

fn counted<E>(
    chunks: impl Stream<Item = Result<Bytes, E>>,
    bar: ProgressBar,
) -> impl Stream<Item = Result<Bytes, E>> {
    chunks.inspect_ok(move |chunk| bar.inc(chunk.len() as u64))
}

/// Shown on a terminal only.
fn bar(length: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match length {
        Some(length) => (
            ProgressBar::new(length),
            "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {bytes} {bytes_per_sec}",
        ),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
