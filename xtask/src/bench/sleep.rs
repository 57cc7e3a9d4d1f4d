//! `./x bench sleep`: putting sandboxes to sleep and waking them, beside CRIU and runsc alone and
//! a plain copy of the same bytes, all in one run.

mod copies;
mod ladder;
mod many;
mod overcommit;
mod peers;

use anyhow::Result;
use woodfrog_testkit::Server;
use woodfrog_testkit::api::Api;

use super::sample::Sample;

const MIB: u64 = 1 << 20;

/// A sandbox that is measured: its name, the memory that a program in it holds, its limit, and
/// how often it is put to sleep.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    held_mib: usize,
    limit: u64,
    rounds: usize,
    /// Whether copies of it are measured as well.
    copied: bool,
}

const SHELL: Kind = Kind {
    name: "shell",
    held_mib: 0,
    limit: 512 * MIB,
    rounds: 30,
    copied: true,
};
const SMALL: Kind = Kind {
    name: "64 MB python",
    held_mib: 64,
    limit: 512 * MIB,
    rounds: 20,
    copied: true,
};
const LARGE: Kind = Kind {
    name: "1 GiB python",
    held_mib: 1024,
    limit: 1536 * MIB,
    rounds: 6,
    copied: false,
};

/// What others publish; printed, not measured.
const PUBLISHED: &[(&str, &str)] = &[
    ("published: E2B, pause", "about 4 s per GiB of memory"),
    ("published: E2B, resume", "about 1 s"),
    (
        "published: best self-hosted peer, wake from disk, 64 MB",
        "160 to 180 ms",
    ),
    (
        "published: best self-hosted peer, wake from disk, 1 GiB",
        "3.3 s",
    ),
];

/// All rows. One that fails says so and does not hide the others.
pub(super) fn all(server: &Server) -> Result<Vec<Sample>> {
    let mut rows = Vec::new();
    for kind in [SHELL, SMALL, LARGE] {
        rows.extend(part(kind.name, || ladder::all(server, kind)));
        rows.extend(part("CRIU alone", || peers::criu(kind)));
        if kind.copied {
            rows.extend(part("forks", || copies::all(server, kind)));
        }
        if kind.held_mib > 0 {
            rows.extend(part("plain copy", || peers::plain_copy(server, kind)));
        }
    }
    rows.extend(part("runsc", peers::runsc));
    rows.extend(part("rounds", || ladder::hashed_rounds(server)));
    rows.extend(part("overcommit", || overcommit::all(server)));
    rows.extend(part("many", || many::all(server)));
    rows.extend(
        PUBLISHED
            .iter()
            .map(|(name, text)| Sample::figure(*name, *text)),
    );
    Ok(rows)
}

fn part(name: &str, work: impl FnOnce() -> Result<Vec<Sample>>) -> Vec<Sample> {
    println!("\n-- {name}");
    work().unwrap_or_else(|error| vec![Sample::missing(name, format!("{error:#}"))])
}

/// A sandbox of this kind that is ready to be measured.
fn make(api: &mut Api, kind: Kind) -> Result<String> {
    let id = api.create(kind.limit)?;
    if kind.held_mib > 0 {
        api.hold_memory(&id, kind.held_mib)?;
    } else {
        api.start(
            &id,
            &["/bin/bash", "-c", "while :; do read -t 3600; done <> <(:)"],
        )?;
    }
    Ok(id)
}
