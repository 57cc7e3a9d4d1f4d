//! The disk fills up while a sandbox is being saved.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use woodfrog_testkit::api::Api;
use woodfrog_testkit::{Server, wait_for};

use crate::cases::check;
use crate::{Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[(
    "full_disk::what_cannot_be_saved_goes_on_and_leaves_nothing",
    full,
)];

const LIMIT: u64 = 256 << 20;
/// More than twice the room that is left.
const HELD_MIB: usize = 96;
/// Of this the pool is filled.
const PIECE: &str = "16MiB";
/// Of a pool of one GiB.
const PIECES_MAX: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

fn full(_: &Context) -> Result<()> {
    let dir = data_dir("full-disk");
    std::fs::create_dir_all(&dir)?;
    let config = dir.join("small.toml");
    std::fs::write(&config, "pool_size = \"1GiB\"\n")?;
    let config = config.to_str().context("the path of the settings")?;
    let flags = ["--dev", "--spares", "0", "--config", config];
    let server = Server::start(&binary(), &dir, &flags)?;
    if !dir.join("pool.img").exists() {
        // The pool is a folder of the machine's own btrfs, which nobody wants to fill.
        return server.remove();
    }
    server.run(&["template", "prepare", "base"])?;
    let mut api = Api::connect(server.url())?;
    let id = api.create(LIMIT)?;
    api.hold_memory(&id, HELD_MIB)?;
    api.shell(&id, "echo kept > /root/file")?;
    let hash = api.memory_hash(&id)?;
    let path = format!("/sandboxes/{id}/checkpoint");
    let saved = api.must("POST", &path, Some(&json!({ "name": "before" })))?;
    let saved = saved["id"].as_str().context("an id")?.to_owned();
    let before = kept(&mut api, &dir)?;
    let filler = fill(&dir.join("pool"))?;
    for what in ["checkpoint", "hibernate", "checkpoint"] {
        let path = format!("/sandboxes/{id}/{what}");
        let refused = api.call("POST", &path, None)?.err();
        let refused = refused.with_context(|| format!("{what} found room"))?;
        check!(refused.code == "checkpoint_failed", "{refused}");
        check!(refused.message.contains("disk is full"), "{refused}");
        check!(api.state(&id)? == "running", "after {what}");
        check!(api.memory_hash(&id)? == hash, "other memory after {what}");
        wait_for("what was begun to go", PATIENCE, || {
            let staged = std::fs::read_dir(dir.join("pool/staging")).ok()?;
            (staged.count() == 0).then_some(())
        })?;
        let now = kept(&mut api, &dir)?;
        check!(now == before, "{now:?}, before {before:?}");
    }
    let verified = api.must("POST", &format!("/snapshots/{saved}/verify"), None)?;
    check!(verified["state"] == "ready", "{verified}");
    for piece in filler {
        std::fs::remove_file(piece)?;
    }
    // The file system gives the room back when it writes down that they are gone.
    let synced = Command::new("sync")
        .arg("-f")
        .arg(dir.join("pool"))
        .status()?;
    check!(synced.success(), "the pool was not synced");
    // The snapshot from before is as good as it was, and there is room for the next.
    let body = json!({ "template": saved, "resources": { "memory_bytes": LIMIT } });
    let copy = api.must("POST", "/sandboxes", Some(&body))?;
    let copy = copy["id"].as_str().context("an id")?.to_owned();
    api.act(&id, "hibernate")?;
    for id in [&id, &copy] {
        check!(api.memory_hash(id)? == hash, "other memory in {id}");
        let file = api.shell(id, "cat /root/file")?;
        check!(file == "kept\n", "{file}");
    }
    server.remove()
}

/// The snapshots that the server knows, and those on its disk.
fn kept(api: &mut Api, dir: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let page = api.must("GET", "/snapshots?limit=100", None)?;
    let items = page["items"].as_array().context("items")?;
    let ids = items.iter().filter_map(|item| item["id"].as_str());
    let mut known: Vec<String> = ids.map(str::to_owned).collect();
    let entries = std::fs::read_dir(dir.join("pool/snapshots"))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut there = names.collect::<Result<Vec<_>>>()?;
    known.sort();
    there.sort();
    Ok((known, there))
}

/// Fills a pool until there is no room for two pieces more.
fn fill(pool: &Path) -> Result<Vec<PathBuf>> {
    let mut pieces = Vec::new();
    for number in 0..PIECES_MAX {
        let piece = pool.join(format!("filler.{number}"));
        let made = Command::new("fallocate")
            .args(["-l", PIECE])
            .arg(&piece)
            .output()?;
        if !made.status.success() {
            std::fs::remove_file(&piece)?;
            let last = pieces.pop().context("there is no room at all")?;
            std::fs::remove_file(last)?;
            return Ok(pieces);
        }
        pieces.push(piece);
    }
    anyhow::bail!("the pool does not fill up")
}
