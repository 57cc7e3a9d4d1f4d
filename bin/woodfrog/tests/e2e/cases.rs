//! The list of all cases.

use crate::{
    Case, agents, crash, docs, errors, hostile, isolation, leaks, limits, sleep, sleep_crash,
};

/// Every case, in the order in which they run.
pub(crate) fn all() -> Vec<Case> {
    [
        isolation::CASES,
        hostile::CASES,
        limits::CASES,
        errors::CASES,
        agents::CASES,
        docs::CASES,
        sleep::CASES,
        leaks::CASES,
        crash::CASES,
        sleep_crash::CASES,
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
