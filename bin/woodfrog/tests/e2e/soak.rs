//! A slice of `./x soak`: always the same few operations, and a few of its rounds.

use anyhow::Result;
use woodfrog_testkit::Server;
use woodfrog_testkit::soak::{self, Length, Plan, Rounds};

use crate::cases::check;
use crate::{Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[(
    "soak::a_slice_ends_with_an_exact_inventory_and_rounds_change_nothing",
    slice,
)];

/// A sequence in which everything but a hand-picked few operations comes.
const SEED: u64 = 1;
const OPERATIONS: u64 = 24;
const ROUNDS: u64 = 6;

fn slice(_: &Context) -> Result<()> {
    let flags = ["--dev", "--spares", "0"];
    let mut server = Server::start(&binary(), &data_dir("soak"), &flags)?;
    server.run(&["template", "prepare", "base"])?;
    let plan = Plan {
        length: Length::Operations(OPERATIONS),
        seed: SEED,
        say: |_| {},
    };
    let outcome = soak::run(&mut server, plan)?;
    let done: u64 = outcome
        .operations
        .values()
        .map(|(done, refused)| done + refused)
        .sum();
    check!(done == OPERATIONS, "{outcome}");
    let plan = Rounds {
        count: ROUNDS,
        say: |_| {},
    };
    let turned = soak::rounds(server.url(), server.data_dir(), plan)?;
    check!(turned.paused + turned.hibernated == ROUNDS, "{turned}");
    server.remove()
}
