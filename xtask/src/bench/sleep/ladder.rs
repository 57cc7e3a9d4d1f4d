//! Down the ladder and up again.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use woodfrog_testkit::Server;
use woodfrog_testkit::api::Api;

use super::{Kind, MIB, make};
use crate::bench::sample::{Sample, measure};

/// Freezes and thaws of each kind.
const FREEZES: usize = 50;
/// Rounds in which everything is hashed.
const HASHED: usize = 100;

/// Freeze, thaw, hibernate, wake, and what a second hibernation writes.
pub(super) fn all(server: &Server, kind: Kind) -> Result<Vec<Sample>> {
    let mut api = Api::connect(server.url())?;
    let id = make(&mut api, kind)?;
    let rows = rows(&mut api, &id, kind);
    api.delete(&id)?;
    rows
}

fn rows(api: &mut Api, id: &str, kind: Kind) -> Result<Vec<Sample>> {
    let mut rows = freezes(api, id, kind)?;
    let (mut down, mut up) = (Vec::new(), Vec::new());
    let mut written = Vec::new();
    let hash = match kind.held_mib {
        0 => String::new(),
        _ => api.memory_hash(id)?,
    };
    for _ in 0..kind.rounds {
        down.push(api.act(id, "hibernate")?.as_secs_f64() * 1000.0);
        written.push(size(api, id)?);
        let start = Instant::now();
        let said = api.shell(id, "echo awake")?;
        up.push(start.elapsed().as_secs_f64() * 1000.0);
        ensure!(said == "awake\n", "the first command said {said:?}");
        if kind.held_mib > 0 {
            // What comes later is in before the next round.
            ensure!(api.memory_hash(id)? == hash, "the memory is another");
        }
    }
    let name = |what: &str| format!("{}: {what}", kind.name);
    rows.push(shown(&name("hibernate, safe on disk"), down));
    rows.push(shown(&name("wake to the first command answered"), up));
    let show = |(memory, written): &(u64, u64)| {
        let percent = *written as f64 * 100.0 / (*memory).max(1) as f64;
        let (memory, written) = (memory / 1024, written / 1024);
        format!("{written} of {memory} KiB of memory written ({percent:.2} %)")
    };
    if let [first, second, ..] = written.as_slice() {
        rows.push(Sample::figure(name("first hibernation"), show(first)));
        rows.push(Sample::figure(name("second, unchanged"), show(second)));
    }
    Ok(rows)
}

fn freezes(api: &mut Api, id: &str, kind: Kind) -> Result<Vec<Sample>> {
    let (mut down, mut up) = (Vec::new(), Vec::new());
    for _ in 0..FREEZES {
        down.push(api.act(id, "pause")?.as_secs_f64() * 1000.0);
        up.push(api.act(id, "resume")?.as_secs_f64() * 1000.0);
    }
    let name = |what: &str| format!("{}: {what}, through HTTP", kind.name);
    let mut rows = vec![shown(&name("freeze"), down), shown(&name("thaw"), up)];
    // The floor of the two rows: a request that does nothing.
    let path = format!("/sandboxes/{id}");
    rows.push(measure(
        &name("a request that only reads"),
        FREEZES,
        || api.must("GET", &path, None).map(drop),
    )?);
    Ok(rows)
}

fn shown(name: &str, millis: Vec<f64>) -> Sample {
    let sample = Sample::new(name, millis);
    println!("{sample}");
    sample
}

/// Bytes of memory of the snapshot that it sleeps in, and how many were written for it.
fn size(api: &mut Api, id: &str) -> Result<(u64, u64)> {
    let path = format!("/snapshots?source={id}&internal=true");
    let list = api.must("GET", &path, None)?;
    let size = &list["items"][0]["size"];
    let field = |name: &str| size[name].as_u64().context("the size of a snapshot");
    Ok((field("memory_bytes")?, field("written_bytes")?))
}

/// A sandbox is put to sleep and woken again and again; its memory and its files stay as they are.
pub(super) fn hashed_rounds(server: &Server) -> Result<Vec<Sample>> {
    let mut api = Api::connect(server.url())?;
    let id = api.create(512 * MIB)?;
    let result = hashed(&mut api, &id);
    api.delete(&id)?;
    let differences = result?;
    let text = format!("{differences} differences in {HASHED} rounds");
    let name = "hibernate and wake with 16 MiB of memory and 200 files hashed";
    Ok(vec![Sample::figure(name, text)])
}

fn hashed(api: &mut Api, id: &str) -> Result<usize> {
    api.hold_memory(id, 16)?;
    let fill = "mkdir /home/user/tree && cd /home/user/tree && \
                for i in $(seq 200); do head -c $((i * 100)) /dev/urandom > $i; done";
    api.shell(id, fill)?;
    let files = "find /home/user/tree -type f | sort | xargs sha256sum | sha256sum";
    let expected = (api.memory_hash(id)?, api.shell(id, files)?);
    ensure!(expected.0.len() == 64, "no hash of the memory");
    let mut differences = 0;
    for _ in 0..HASHED {
        api.act(id, "hibernate")?;
        let found = (api.memory_hash(id)?, api.shell(id, files)?);
        differences += usize::from(found != expected);
    }
    Ok(differences)
}
