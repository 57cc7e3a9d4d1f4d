//! `woodfrog template import`.

mod source;

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Body;
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;
use woodfrog_wire::native::template::{Build, RegistryImport};

use crate::args::Target;
use crate::client::{Client, ClientError};
use crate::command::{Outcome, follow};
use source::Source;

/// Bytes that are sent at a time.
const CHUNK: usize = 256 * 1024;
/// Chunks that wait to be sent.
const WAITING_MAX: usize = 4;
/// Where the password for a registry comes from: flags are seen by everybody on the machine.
const PASSWORD: &str = "WOODFROG_REGISTRY_PASSWORD";

pub(super) async fn run(
    name: &str,
    source: &str,
    registry_user: Option<String>,
    target: &Target,
) -> Outcome {
    let source = Source::find(source)?;
    let client = Client::new(target)?;
    let (format, body) = match &source {
        Source::Registry(image) => {
            let request = RegistryImport {
                image: image.clone(),
                password: registry_user.as_ref().and(std::env::var(PASSWORD).ok()),
                username: registry_user,
            };
            ("registry", Body::from(serde_json::to_vec(&request)?))
        }
        Source::Rootfs(path) => ("rootfs", file(path).await?),
        Source::OciArchive(path) => ("oci", file(path).await?),
        Source::OciFolder(path) => ("oci", Body::wrap_stream(packed(path))),
    };
    let mut url = client.route(&["templates", name, "import"]);
    url.query_pairs_mut().append_pair("format", format);
    let kind = match source {
        Source::Registry(_) => "application/json",
        Source::Rootfs(_) | Source::OciArchive(_) | Source::OciFolder(_) => "application/x-tar",
    };
    let request = client
        .request(reqwest::Method::POST, url)
        .header("content-type", kind);
    let answer = client.upload(request.body(body)).await?;
    let answer = answer.bytes().await.map_err(ClientError::Broken)?;
    let build: Build = serde_json::from_slice(&answer).map_err(ClientError::Malformed)?;
    let build = follow::follow(&client, build).await?;
    follow::conclude(name, &build, target)
}

async fn file(path: &Path) -> anyhow::Result<Body> {
    let opened = tokio::fs::File::open(path).await;
    let opened = opened.with_context(|| format!("open {}", path.display()))?;
    let bar = bar(opened.metadata().await?.len());
    let chunks = ReaderStream::with_capacity(opened, CHUNK);
    Ok(Body::wrap_stream(
        chunks.inspect_ok(move |chunk| bar.inc(chunk.len() as u64)),
    ))
}

/// Shown on a terminal only.
fn bar(length: u64) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template("uploading {bar:40} {bytes}/{total_bytes} {eta}") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A folder as a tar archive that is never whole anywhere.
fn packed(folder: &Path) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (chunks, waiting) = mpsc::channel(WAITING_MAX);
    let folder = folder.to_owned();
    std::thread::spawn(move || {
        let out = io::BufWriter::with_capacity(CHUNK, Chunks(chunks.clone()));
        let mut archive = tar::Builder::new(out);
        archive.follow_symlinks(false);
        let done = archive
            .append_dir_all(".", &folder)
            .and_then(|()| archive.into_inner()?.flush());
        if let Err(error) = done {
            // Nobody listens any more if this fails.
            let _ = chunks.blocking_send(Err(error));
        }
    });
    stream::unfold(waiting, |mut waiting| async move {
        Some((waiting.recv().await?, waiting))
    })
}

struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
