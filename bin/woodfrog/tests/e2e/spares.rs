//! Sandboxes made ahead, through the built binary.

use std::time::Duration;

use anyhow::{Context as _, Result};
use woodfrog_testkit::http::Client;
use woodfrog_testkit::{Leftovers, Server, wait_for};

use crate::cases::check;
use crate::sleep_crash::own_server;
use crate::{Case, Context};

pub(crate) const CASES: &[Case] = &[
    (
        "spares::a_create_takes_one_and_it_is_like_any_other",
        like_any_other,
    ),
    (
        "spares::a_server_that_ended_or_was_killed_leaves_none",
        none_left,
    ),
];

const READY_MAX: Duration = Duration::from_secs(60);

/// How many there are, as the metrics tell.
fn spares(server: &Server) -> Result<usize> {
    let mut client = Client::connect(server.url())?;
    let (status, text) = client.exchange("GET", "/metrics", "", b"")?;
    check!(status == 200, "the metrics: {status}");
    let text = String::from_utf8(text)?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("woodfrog_sandboxes_spare "));
    Ok(line.context("no such metric")?.trim().parse()?)
}

/// What there is of sandboxes on the machine, whether or not they are anybody's.
fn on_the_machine(server: &Server) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(server.data_dir().join("pool/sandboxes"))?;
    entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect()
}

/// Creates two, which makes the server expect more; returns those.
fn expected(server: &Server) -> Result<[String; 2]> {
    let made = [server.create(&["base"])?, server.create(&["base"])?];
    wait_for("sandboxes made ahead", READY_MAX, || {
        (spares(server).ok()? == 3).then_some(())
    })?;
    Ok(made)
}

fn like_any_other(_: &Context) -> Result<()> {
    let server = own_server("spares")?;
    let before = Leftovers::count(server.data_dir());
    let [first, second] = expected(&server)?;
    let ahead = on_the_machine(&server)?;
    let id = server.create(&["base", "--env", "A=1"])?;
    check!(
        ahead.contains(&id) && id != first && id != second,
        "it was not made ahead"
    );
    let seen = server.exec(&id, "user", "hostname; echo $A; ls ~ | wc -l; whoami")?;
    check!(seen.stdout == format!("{id}\n1\n0\nuser\n"), "{seen:?}");
    let listed = server.json(&["sandbox", "list"])?;
    let listed = listed.as_array().map_or(0, Vec::len);
    check!(listed == 3, "{listed} are listed");
    let closed = server.create(&["base", "--no-internet"])?;
    let shown = server.json(&["sandbox", "show", &closed])?;
    check!(shown["network"]["internet"] == false, "{shown}");
    server.run(&["sandbox", "hibernate", &id])?;
    let seen = server.exec(&id, "user", "hostname")?;
    check!(seen.stdout == format!("{id}\n"), "{seen:?}");
    server.run(&["sandbox", "delete", &first, &second, &id, &closed])?;
    let mut server = server;
    server.stop()?;
    let freed = wait_for("everything to be freed", READY_MAX, || {
        Leftovers::count(server.data_dir())
            .is_within(&before)
            .then_some(())
    });
    let now = Leftovers::count(server.data_dir());
    check!(freed.is_ok(), "before {before:?}\nnow    {now:?}");
    server.remove()
}

fn none_left(_: &Context) -> Result<()> {
    let mut server = own_server("spares-killed")?;
    let mine = expected(&server)?;
    check!(on_the_machine(&server)?.len() == 5, "not made ahead");
    server.kill()?;
    server.restart()?;
    let mut left = on_the_machine(&server)?;
    left.sort_unstable();
    let mut wanted = mine.to_vec();
    wanted.sort_unstable();
    check!(left == wanted, "{left:?} are there, not {wanted:?}");
    expected(&server)?;
    server.stop()?;
    let left = on_the_machine(&server)?.len();
    check!(left == 4, "{left} are there after the stop");
    server.restart()?;
    for id in mine {
        let seen = server.exec(&id, "user", "echo usable")?;
        check!(seen.stdout == "usable\n", "{id}: {seen:?}");
    }
    server.remove()
}
