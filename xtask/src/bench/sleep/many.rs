//! What a thousand sleeping sandboxes cost.

use anyhow::Result;
use woodfrog_testkit::api::Api;
use woodfrog_testkit::{Leftovers, Server};

use super::MIB;
use crate::bench::memory::resident;
use crate::bench::sample::Sample;

/// How many.
const MANY: usize = 1000;

/// Creates and hibernates them one after the other, then counts.
pub(super) fn all(server: &Server) -> Result<Vec<Sample>> {
    let mut api = Api::connect(server.url())?;
    let before = Leftovers::count(server.data_dir());
    let mut ids = Vec::new();
    let made = make(&mut api, &mut ids);
    let count = ids.len();
    let after = Leftovers::count(server.data_dir());
    let rss = resident(server.pid())? / 1024;
    for id in &ids {
        api.delete(id)?;
    }
    made?;
    let name = |what: &str| format!("{count} hibernated: {what}");
    Ok(vec![
        Sample::figure(name("resident memory of the server"), format!("{rss} MiB")),
        Sample::figure(name("left on the machine"), difference(&before, &after)),
    ])
}

fn make(api: &mut Api, ids: &mut Vec<String>) -> Result<()> {
    for number in 0..MANY {
        let id = api.create(256 * MIB)?;
        ids.push(id.clone());
        api.act(&id, "hibernate")?;
        if number % 100 == 99 {
            println!("{} sleep", number + 1);
        }
    }
    Ok(())
}

fn difference(before: &Leftovers, after: &Leftovers) -> String {
    let parts = after.0.iter().map(|(name, count)| {
        let before = before.0.get(name).copied().unwrap_or(0);
        format!("{name} {:+}", *count as i64 - before as i64)
    });
    parts.collect::<Vec<_>>().join(", ")
}
