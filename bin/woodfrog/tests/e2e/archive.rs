//! The archive through the built binary: sandboxes go there and come back, whatever is killed or
//! damaged on the way.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use woodfrog_testkit::{Server, wait_for};

use crate::cases::check;
use crate::sleep::{count, counters, counts_on, start_counter, state};
use crate::sleep_crash::own_server;
use crate::{Case, Context};

pub(crate) const CASES: &[Case] = &[
    (
        "archive::it_leaves_the_machine_and_comes_back",
        there_and_back,
    ),
    (
        "archive::a_damaged_archive_is_refused_and_nothing_is_lost",
        damaged,
    ),
    (
        "archive::a_kill_while_one_is_archived_loses_nothing",
        kill_while_archiving,
    ),
    (
        "archive::a_kill_while_one_comes_back_loses_nothing",
        kill_while_coming_back,
    ),
];

/// Kills of one kind, each a little later than the one before.
const ROUNDS: u64 = 4;

/// Files below a folder of the archive.
fn files(server: &Server, folder: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![server.data_dir().join("archive").join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    Ok(found)
}

/// What the pool has of snapshots.
fn snapshots(server: &Server) -> Result<Vec<String>> {
    let folder = server.data_dir().join("pool/snapshots");
    let entries = std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

fn archived(server: &Server) -> Result<(String, u64)> {
    let id = server.create(&["base"])?;
    start_counter(server, &id)?;
    let before = count(server, &id)?;
    server.run(&["sandbox", "archive", &id])?;
    let state = state(server, &id)?;
    check!(state == "archived", "{state}");
    Ok((id, before))
}

fn there_and_back(context: &Context) -> Result<()> {
    let server = &context.server;
    let roots = files(server, "manifests")?.len();
    let (id, before) = archived(server)?;
    let shown = server.json(&["snapshot", "list", "--source", &id, "--all"])?;
    let snapshot = shown[0]["id"].as_str().context("a snapshot")?.to_owned();
    check!(shown[0]["place"] == "archive", "{shown}");
    let left = snapshots(server)?;
    check!(
        !left.iter().any(|name| name.contains(&snapshot)),
        "it is still here: {left:?}"
    );
    check!(files(server, "manifests")?.len() == roots + 1, "no root");
    server.run(&["snapshot", "verify", &snapshot])?;
    counts_on(server, &id, before)?;
    check!(counters(server, &id)? == "1", "not one counter");
    check!(state(server, &id)? == "running", "it did not wake");
    server.run(&["sandbox", "archive", &id])?;
    server.run(&["sandbox", "delete", &id])?;
    check!(
        files(server, "manifests")?.len() == roots,
        "its root was not removed"
    );
    Ok(())
}

/// Moves every chunk aside; returns where they were.
fn take_away(server: &Server, aside: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    std::fs::create_dir_all(aside)?;
    let mut moved = Vec::new();
    for (number, file) in files(server, "chunks")?.into_iter().enumerate() {
        let kept = aside.join(number.to_string());
        std::fs::rename(&file, &kept)?;
        moved.push((file, kept));
    }
    Ok(moved)
}

fn damaged(_: &Context) -> Result<()> {
    let server = own_server("archive-damaged")?;
    let (id, before) = archived(&server)?;
    let aside = server.data_dir().join("aside");
    let moved = take_away(&server, &aside)?;
    check!(!moved.is_empty(), "no chunks");
    let refused = server.exec(&id, "user", "true");
    let text = format!("{refused:?}");
    check!(text.contains("archive"), "{text}");
    check!(
        state(&server, &id)? == "archived",
        "it is not there any more"
    );
    // Cut short instead.
    for (file, kept) in &moved {
        let content = std::fs::read(kept)?;
        std::fs::write(file, &content[..content.len() / 2])?;
    }
    let refused = server.exec(&id, "user", "true");
    let text = format!("{refused:?}");
    check!(text.contains("cannot be used"), "{text}");
    check!(
        state(&server, &id)? == "archived",
        "it is not there any more"
    );
    for (file, kept) in &moved {
        std::fs::rename(kept, file)?;
    }
    let shown = server.json(&["snapshot", "list", "--source", &id, "--all"])?;
    let snapshot = shown[0]["id"].as_str().context("a snapshot")?;
    server.run(&["snapshot", "verify", snapshot])?;
    counts_on(&server, &id, before)?;
    check!(counters(&server, &id)? == "1", "not one counter");
    server.remove()
}

/// Waits until the sandbox stands still on some rung.
fn settled(server: &Server, id: &str) -> Result<String> {
    wait_for("the sandbox to settle", Duration::from_secs(40), || {
        let state = state(server, id).ok()?;
        ["running", "hibernated", "archived"]
            .contains(&state.as_str())
            .then_some(state)
    })
}

/// Runs a command, and kills the server in the middle of it.
fn killed_in(server: &mut Server, args: &[&str], after: Duration) -> Result<()> {
    let mut under_way = server
        .cli(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    std::thread::park_timeout(after);
    server.kill()?;
    under_way.wait()?;
    server.restart()
}

fn whole(server: &Server, id: &str, before: u64) -> Result<u64> {
    settled(server, id)?;
    let now = counts_on(server, id, before)?;
    let counters = counters(server, id)?;
    check!(counters == "1", "{counters} counters");
    Ok(now)
}

fn kill_while_archiving(_: &Context) -> Result<()> {
    let mut server = own_server("archiving")?;
    let id = server.create(&["base"])?;
    start_counter(&server, &id)?;
    let mut before = count(&server, &id)?;
    for round in 0..ROUNDS {
        server.run(&["sandbox", "hibernate", &id])?;
        let after = Duration::from_millis(15 + round * 40);
        killed_in(&mut server, &["sandbox", "archive", &id], after)?;
        let state = settled(&server, &id)?;
        check!(state != "running", "it woke by itself");
        before = whole(&server, &id, before)?;
    }
    server.run(&["sandbox", "delete", &id])?;
    let left = snapshots(&server)?;
    check!(left.is_empty(), "{left:?}");
    server.remove()
}

fn kill_while_coming_back(_: &Context) -> Result<()> {
    let mut server = own_server("coming-back")?;
    let id = server.create(&["base"])?;
    start_counter(&server, &id)?;
    let mut before = count(&server, &id)?;
    for round in 0..ROUNDS {
        server.run(&["sandbox", "archive", &id])?;
        let after = Duration::from_millis(15 + round * 30);
        killed_in(&mut server, &["sandbox", "resume", &id], after)?;
        before = whole(&server, &id, before)?;
    }
    server.run(&["sandbox", "delete", &id])?;
    let left = snapshots(&server)?;
    check!(left.is_empty(), "{left:?}");
    check!(files(&server, "manifests")?.is_empty(), "roots are left");
    server.remove()
}
