//! The gVisor driver keeps the promises of the port: on the kernel, as root.
//!
//! A program of its own rather than a harness: the driver executes it again to start `runsc`.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod common;

use std::process::ExitCode;
use std::sync::Arc;

use common::Machine;
use libtest_mimic::{Arguments, Trial};
use woodfrog_sandbox::conformance::cases;

fn main() -> ExitCode {
    common::play_role();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if arguments.list {
        let names = cases()
            .into_iter()
            .map(|(name, _)| Trial::test(name, || Ok(())));
        return libtest_mimic::run(&arguments, names.collect()).exit_code();
    }
    if woodfrog_linux::runsc::find(&woodfrog_linux::runsc::default_prefix()).is_none() {
        println!("NOT RUN: no runsc; `woodfrog doctor --fix` installs it");
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let handle = runtime.handle().clone();
    let machine = Arc::new(Machine::new(common::guest()));
    let trials = cases().into_iter().map(|(name, case)| {
        let (machine, handle) = (Arc::clone(&machine), handle.clone());
        Trial::test(name, move || {
            handle.block_on(case(&*machine));
            Ok(())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    let purged = runtime.block_on(common::purge(&machine));
    if let Err(error) = purged {
        eprintln!("purge: {error:?}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
