//! `woodfrog template build`: a Dockerfile and its files through the template routes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use reqwest::{Body, Method, Url};
use tokio_util::io::ReaderStream;
use woodfrog_wire::e2b::template::{
    BuildStart, FileUpload, NewTemplate, Step as WireStep, TemplateRequested,
};
use woodfrog_wire::native::template::{Build, Template};

use super::context::{Archive, pack};
use super::dockerfile::{self, CopyStep, Recipe, Step};
use crate::args::BuildArgs;
use crate::client::{Client, ClientError};
use crate::command::{Outcome, Usage, follow};
use crate::output;

pub(super) async fn run(args: BuildArgs) -> Outcome {
    let recipe = read(&args)?;
    let client = Client::new(&args.target)?;
    // Everything that can be wrong on this side is found before the server is asked for anything.
    let archives = archives(&args.context, &recipe).await?;
    let (from_image, from_template) = base(&client, &recipe.from).await?;
    let request = NewTemplate {
        name: Some(args.name.clone()),
        cpu_count: args.cpus,
        memory_mb: args.memory.map(|bytes| bytes >> 20),
        ..NewTemplate::default()
    };
    let url = client.root_route(["v3", "templates"]);
    let request = client.request(Method::POST, url).json(&request);
    let made: TemplateRequested = client.json(request).await?;
    let mut steps = Vec::with_capacity(recipe.steps.len());
    let mut archives = archives.into_iter();
    for step in recipe.steps {
        let files_hash = match &step {
            Step::Copy(_) => match archives.next() {
                Some(archive) => Some(upload(&client, &made.template_id, archive).await?),
                None => anyhow::bail!("a COPY step has no archive"),
            },
            Step::Run(_) | Step::Env(_) | Step::Workdir(_) | Step::User(_) => None,
        };
        steps.push(wire(step, files_hash));
    }
    let start = BuildStart {
        from_image,
        from_template,
        force: Some(args.no_cache),
        steps: Some(steps),
        start_cmd: recipe.start_cmd,
        ready_cmd: args.ready_cmd.clone(),
        ..BuildStart::default()
    };
    let route = [
        "v2",
        "templates",
        &made.template_id,
        "builds",
        &made.build_id,
    ];
    let request = client.request(Method::POST, client.root_route(route));
    client.send(request.json(&start)).await?;
    let route = ["templates", &made.template_id, "builds", &made.build_id];
    let build: Build = client.json(client.get(&route)).await?;
    let build = follow::follow(&client, build).await?;
    follow::conclude(&args.name, &build, &args.target)
}

fn read(args: &BuildArgs) -> anyhow::Result<Recipe> {
    if !args.context.is_dir() {
        let message = format!("{} is not a folder", args.context.display());
        return Err(Usage(message).into());
    }
    let file = args
        .file
        .clone()
        .unwrap_or_else(|| args.context.join("Dockerfile"));
    let shown = file.display();
    let source = std::fs::read_to_string(&file).with_context(|| format!("read {shown}"))?;
    let arguments: BTreeMap<String, String> = args.build_args.iter().cloned().collect();
    let recipe = dockerfile::parse(&source, &arguments).with_context(|| shown.to_string())?;
    for name in &recipe.ignored {
        output::note(&format!("{name} changes nothing in a template"));
    }
    let copies = recipe
        .steps
        .iter()
        .any(|step| matches!(step, Step::Copy(_)));
    if copies && args.context.join(".dockerignore").exists() {
        output::note(".dockerignore is not read: COPY takes everything that it names");
    }
    Ok(recipe)
}

async fn archives(context: &Path, recipe: &Recipe) -> anyhow::Result<Vec<Archive>> {
    let sources = recipe.steps.iter().filter_map(|step| match step {
        Step::Copy(copy) => Some(copy.source.clone()),
        Step::Run(_) | Step::Env(_) | Step::Workdir(_) | Step::User(_) => None,
    });
    let mut archives = Vec::new();
    for source in sources {
        let context = context.to_owned();
        let packed = tokio::task::spawn_blocking(move || pack(&context, &source)).await??;
        archives.push(packed);
    }
    Ok(archives)
}

/// The image or template that FROM names: a template of the server if it has one of that name.
async fn base(
    client: &Client,
    name: &str,
) -> Result<(Option<String>, Option<String>), ClientError> {
    let image = (Some(name.to_owned()), None);
    if name.contains(['/', '@']) {
        return Ok(image);
    }
    // The server's own template is made when it is first wanted.
    let found: Result<Template, ClientError> = match name {
        "base" => {
            let build = client.json(client.post(&["templates", name, "prepare"]));
            let build = follow::follow(client, build.await?).await?;
            if build.status != "ready" {
                let message = "the server's own template `base` could not be made".to_owned();
                return Err(ClientError::Setup(message));
            }
            client.json(client.get(&["templates", name])).await
        }
        _ => client.json(client.get(&["templates", name])).await,
    };
    match found {
        Ok(_) => {
            output::note(&format!("FROM {name}: the server's template of that name"));
            Ok((None, Some(name.to_owned())))
        }
        // A name that no template can have is an image's.
        Err(ClientError::Refused(problem)) if matches!(problem.status, 400 | 404) => Ok(image),
        Err(error) => Err(error),
    }
}

/// Uploads the archive unless the server has it; returns its hash.
async fn upload(client: &Client, template: &str, archive: Archive) -> anyhow::Result<String> {
    let url = client.root_route(["templates", template, "files", &archive.hash]);
    let slot: FileUpload = client.json(client.request(Method::GET, url)).await?;
    let Some(url) = slot.url.filter(|_| !slot.present) else {
        return Ok(archive.hash);
    };
    output::note(&format!("uploading {}", output::bytes(archive.bytes)));
    let url = Url::parse(&url).context("read the URL to upload to")?;
    let file = tokio::fs::File::from_std(archive.file);
    let request = client
        .anonymous(Method::PUT, url)
        .header("content-length", archive.bytes)
        .body(Body::wrap_stream(ReaderStream::new(file)));
    client.upload(request).await?;
    Ok(archive.hash)
}

fn wire(step: Step, files_hash: Option<String>) -> WireStep {
    let (kind, args) = match step {
        Step::Copy(CopyStep {
            source,
            destination,
            owner,
            mode,
        }) => {
            // Without --chown Docker gives files to root.
            let owner = owner.unwrap_or_else(|| "root".into());
            let args = vec![source, destination, owner, mode.unwrap_or_default()];
            ("COPY", args)
        }
        Step::Run(command) => ("RUN", vec![command]),
        Step::Env(pairs) => {
            let flat = pairs.into_iter().flat_map(|(name, value)| [name, value]);
            ("ENV", flat.collect())
        }
        Step::Workdir(path) => ("WORKDIR", vec![path]),
        Step::User(name) => ("USER", vec![name]),
    };
    WireStep {
        kind: kind.to_owned(),
        args: Some(args),
        files_hash,
        force: None,
    }
}
