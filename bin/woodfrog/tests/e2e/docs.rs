//! What README.md and the guides tell people to type works as written.
//!
//! The `sh` blocks of a page become one script, the `js` and `python` blocks are run with the SDKs
//! that `./x setup --tests` installs. `<!-- not run: reason -->` before a block leaves it out.

mod page;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cases::check;
use crate::{Case, Context};
use page::{Block, Page};

pub(crate) const CASES: &[Case] = &[
    ("docs::every_command_of_the_pages_works", commands_work),
    ("docs::links_of_the_pages_lead_somewhere", links_lead),
];

/// A page that hangs fails.
const PAGE_SECONDS_MAX: &str = "300";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn pages() -> Result<Vec<Page>> {
    let mut paths = vec![root().join("README.md")];
    for entry in std::fs::read_dir(root().join("docs/guides"))? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    paths.iter().map(|path| Page::read(path)).collect()
}

fn commands_work(context: &Context) -> Result<()> {
    let (mut ran, mut failures) = (0, Vec::new());
    for page in pages()? {
        let not_run = page.blocks.iter().filter(|block| block.not_run.is_some());
        println!("{}: {} blocks not run", page.name, not_run.count());
        match run_page(context, &page) {
            Ok(count) => ran += count,
            Err(error) => failures.push(format!("{}: {error:?}", page.name)),
        }
        forget(context)?;
    }
    check!(failures.is_empty(), "{}", failures.join("\n\n"));
    check!(ran > 20, "only {ran} commands were found");
    Ok(())
}

/// Returns how many commands and programs ran.
fn run_page(context: &Context, page: &Page) -> Result<usize> {
    for block in &page.blocks {
        let known = ["sh", "js", "python", "text", "toml", "json"];
        let language = block.language.as_str();
        check!(known.contains(&language), "a block of `{language}`");
    }
    let work = tempfile::tempdir()?;
    fixtures(work.path())?;
    let (script, mut ran) = page.script();
    if ran > 0 {
        let script = settle(context, &script)?;
        let mut command = shell(context, work.path())?;
        bounded(command.arg(&script)).with_context(|| format!("the script:\n{script}"))?;
    }
    for block in page.blocks.iter().filter(|block| block.not_run.is_none()) {
        ran += match block.language.as_str() {
            "js" => javascript(context, block)?,
            "python" => python(context, block, work.path())?,
            _ => 0,
        };
    }
    Ok(ran)
}

/// Files that the pages take to be there.
fn fixtures(dir: &Path) -> Result<()> {
    std::fs::write(dir.join("file"), "of the machine\n")?;
    let cache = std::env::var_os("WOODFROG_CACHE_DIR").unwrap_or("/var/cache/woodfrog".into());
    for entry in std::fs::read_dir(cache)?.flatten() {
        if entry.file_name().to_string_lossy().ends_with(".tar.zst") {
            std::os::unix::fs::symlink(entry.path(), dir.join("rootfs.tar.zst"))?;
            break;
        }
    }
    Ok(())
}

/// The server of the tests in place of the pages'.
fn settle(context: &Context, text: &str) -> Result<String> {
    let data_dir = context.server.data_dir().display().to_string();
    Ok(text
        .replace("http://127.0.0.1:7070", context.server.url())
        .replace("/var/lib/woodfrog", &data_dir)
        .replace("e2b_…", &format!("e2b_{}", key(context)?))
        .replace("wf_…", &format!("wf_{}", key(context)?)))
}

/// The digits of the admin key.
fn key(context: &Context) -> Result<String> {
    let text = std::fs::read_to_string(context.server.data_dir().join("admin.key"))?;
    Ok(text.trim().trim_start_matches("wf_").to_owned())
}

fn environment(context: &Context, command: &mut Command) -> Result<()> {
    let server = &context.server;
    let bin = server.binary().parent().context("folder of the binary")?;
    let path = std::env::var("PATH").unwrap_or_default();
    command
        .env("PATH", format!("{}:{path}", bin.display()))
        .env("WOODFROG_URL", server.url())
        .env("WOODFROG_DATA_DIR", server.data_dir())
        .env("E2B_API_KEY", format!("e2b_{}", key(context)?))
        .env("E2B_API_URL", server.url())
        .env("E2B_SANDBOX_URL", server.url())
        .env("E2B_VOLUME_API_URL", server.url());
    Ok(())
}

/// A shell that stops at the first failure and shows what it runs.
fn shell(context: &Context, work: &Path) -> Result<Command> {
    let mut command = Command::new("timeout");
    command.args([PAGE_SECONDS_MAX, "bash", "-euxo", "pipefail", "-c"]);
    command.current_dir(work);
    environment(context, &mut command)?;
    Ok(command)
}

fn bounded(command: &mut Command) -> Result<()> {
    let output = command.stdin(std::process::Stdio::null()).output()?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let last: Vec<&str> = said.lines().rev().take(30).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    check!(
        output.status.success(),
        "{}\n{}",
        output.status,
        last.join("\n")
    );
    Ok(())
}

/// Folders of `target/sdk` that begin so.
fn sdks(prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("target/sdk"));
    let mut found: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    if found.is_empty() {
        println!("no SDK ({prefix}…): run `./x setup --tests`; its blocks are not run");
    }
    found
}

fn javascript(context: &Context, block: &Block) -> Result<usize> {
    for dir in sdks("js-") {
        // Modules are found from where the program is.
        let program = dir.join(format!("_docs-{}.mjs", std::process::id()));
        std::fs::write(&program, settle(context, &block.text)?)?;
        let mut command = Command::new("timeout");
        // Node 20 has a browser's WebSocket, but does not say so by itself.
        let node = [PAGE_SECONDS_MAX, "node", "--experimental-websocket"];
        command.args(node).arg(&program);
        environment(context, &mut command)?;
        let ended = bounded(&mut command);
        std::fs::remove_file(&program)?;
        ended.with_context(|| format!("{}:\n{}", dir.display(), block.text))?;
    }
    Ok(1)
}

fn python(context: &Context, block: &Block, work: &Path) -> Result<usize> {
    let program = work.join("program.py");
    std::fs::write(&program, settle(context, &block.text)?)?;
    for dir in sdks("py-") {
        let mut command = Command::new("timeout");
        command.arg(PAGE_SECONDS_MAX).arg(dir.join("bin/python"));
        command.arg(&program).current_dir(work);
        environment(context, &mut command)?;
        let ended = bounded(&mut command);
        ended.with_context(|| format!("{}:\n{}", dir.display(), block.text))?;
    }
    Ok(1)
}

/// Removes what a page left, for the cases after it.
fn forget(context: &Context) -> Result<()> {
    let listed = context.server.json(&["sandbox", "list"])?;
    for sandbox in listed.as_array().into_iter().flatten() {
        let id = sandbox["id"].as_str().unwrap_or_default();
        context.server.run(&["sandbox", "delete", id])?;
    }
    Ok(())
}

/// `[text](path)` names a file, from the page's folder.
fn links_lead(_: &Context) -> Result<()> {
    let mut paths = vec![root()];
    for dir in ["docs", "docs/design", "docs/guides", "docs/reference"] {
        paths.push(root().join(dir));
    }
    let mut broken = Vec::new();
    for dir in paths {
        for entry in std::fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "md") {
                continue;
            }
            let text = std::fs::read_to_string(&path)?;
            for rest in text.split("](").skip(1) {
                let target = rest.split([')', '#']).next().unwrap_or_default();
                let ours = !target.is_empty() && !target.contains("://");
                if ours && !dir.join(target).exists() {
                    broken.push(format!("{}: {target}", path.display()));
                }
            }
        }
    }
    check!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}
