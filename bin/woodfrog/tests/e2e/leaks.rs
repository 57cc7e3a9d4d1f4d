//! Deleting frees everything.

use std::time::Duration;

use anyhow::Result;
use woodfrog_testkit::{Leftovers, wait_for};

use crate::cases::check;
use crate::{Case, Context};

pub(crate) const CASES: &[Case] = &[
    ("leaks::delete_frees_everything", delete_frees_everything),
    ("leaks::expiry_frees_everything", expiry_frees_everything),
    (
        "leaks::a_failed_create_leaves_nothing",
        failed_create_leaves_nothing,
    ),
];

/// Waits until the machine has no more than it had: clean-up of networks may take a moment, that
/// of the case before, too.
fn settle(context: &Context, before: &Leftovers) -> Result<()> {
    let dir = context.server.data_dir();
    let settled = wait_for("everything to be freed", Duration::from_secs(40), || {
        Leftovers::count(dir).is_within(before).then_some(())
    });
    let now = Leftovers::count(dir);
    check!(settled.is_ok(), "before {before:?}\nnow    {now:?}");
    Ok(())
}

fn delete_frees_everything(context: &Context) -> Result<()> {
    let server = &context.server;
    let before = Leftovers::count(server.data_dir());
    let ids = (0..10)
        .map(|_| server.create(&["base"]))
        .collect::<Result<Vec<_>>>()?;
    for id in &ids {
        server.exec(
            id,
            "user",
            "echo x > ~/x; setsid -f sleep 600 >/dev/null 2>&1 </dev/null",
        )?;
    }
    check!(
        Leftovers::count(server.data_dir()) != before,
        "nothing was counted"
    );
    let mut args = vec!["sandbox", "delete"];
    args.extend(ids.iter().map(String::as_str));
    server.run(&args)?;
    settle(context, &before)
}

fn expiry_frees_everything(context: &Context) -> Result<()> {
    let before = Leftovers::count(context.server.data_dir());
    let id = context.server.create(&["base", "--timeout", "1"])?;
    wait_for("the sandbox to expire", Duration::from_secs(30), || {
        context
            .server
            .run(&["sandbox", "show", &id])
            .is_err()
            .then_some(())
    })?;
    settle(context, &before)
}

fn failed_create_leaves_nothing(context: &Context) -> Result<()> {
    let before = Leftovers::count(context.server.data_dir());
    for flags in [["nope", "--timeout", "5"], ["base", "--disk", "1KiB"]] {
        let _ = context.server.create(&flags);
    }
    for id in context
        .server
        .json(&["sandbox", "list"])?
        .as_array()
        .into_iter()
        .flatten()
    {
        context
            .server
            .run(&["sandbox", "delete", id["id"].as_str().unwrap_or_default()])?;
    }
    settle(context, &before)
}
