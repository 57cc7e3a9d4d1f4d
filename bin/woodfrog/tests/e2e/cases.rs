//! The list of all cases.

use crate::{
    Case, agents, archive, artifacts, crash, docs, egress, errors, files, full_disk, handoff,
    hostile, isolation, leaks, limits, runs, sessions, sleep, sleep_crash, sleep_said, soak,
    spares, volumes, websocket,
};

/// Every case, in the order in which they run.
pub(crate) fn all() -> Vec<Case> {
    [
        isolation::CASES,
        hostile::CASES,
        limits::CASES,
        errors::CASES,
        files::CASES,
        agents::CASES,
        archive::CASES,
        docs::CASES,
        egress::CASES,
        sleep::CASES,
        sleep_said::CASES,
        volumes::CASES,
        sessions::CASES,
        runs::CASES,
        artifacts::CASES,
        websocket::CASES,
        handoff::CASES,
        leaks::CASES,
        crash::CASES,
        sleep_crash::CASES,
        full_disk::CASES,
        soak::CASES,
        spares::CASES,
    ]
    .concat()
}

/// `bail!` with what was seen unless `condition` holds.
macro_rules! check {
    ($condition:expr, $($seen:tt)+) => {
        let holds: bool = $condition;
        if !holds {
            anyhow::bail!("not so: {}\n{}", stringify!($condition), format_args!($($seen)+));
        }
    };
}
pub(crate) use check;
