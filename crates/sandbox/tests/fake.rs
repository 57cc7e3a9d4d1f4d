//! The fake driver keeps the promises of the port.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use woodfrog_sandbox::conformance::{Fixture, cases};
use woodfrog_sandbox::fake::{FakeDriver, Outcome};
use woodfrog_sandbox::{Capability, Driver, LaunchSpec};
use woodfrog_types::SandboxId;
use woodfrog_types::sandbox::InstanceState;

/// The map of a fake driver is the machine, which outlives its drivers.
struct Fake {
    driver: Arc<FakeDriver>,
}

#[async_trait]
impl Fixture for Fake {
    async fn driver(&self) -> Arc<dyn Driver> {
        Arc::clone(&self.driver) as Arc<dyn Driver>
    }

    fn layers(&self) -> Vec<PathBuf> {
        vec![PathBuf::from("/layer")]
    }

    fn program(&self) -> (String, i32) {
        ("/bin/program".to_owned(), 3)
    }

    fn has_shell(&self) -> bool {
        false
    }

    fn spoil(&self, spec: &mut LaunchSpec) {
        spec.layers = vec![PathBuf::from(FakeDriver::NO_LAYER)];
    }

    fn end_init(&self, _: &dyn Driver, id: &SandboxId, _: &InstanceState) {
        self.driver.exit(id, "killed");
    }

    fn traces(&self, _: &dyn Driver) -> Vec<String> {
        let mut left = self.driver.sandboxes();
        left.extend(self.driver.kept_disks());
        let snapshots = self.driver.snapshots();
        let snapshots = snapshots.iter().map(ToString::to_string);
        left.iter()
            .map(ToString::to_string)
            .chain(snapshots)
            .collect()
    }
}

fn run(driver: FakeDriver) {
    driver.guest().on_command(
        "--bogus",
        [Outcome {
            stdout: "usage".to_owned(),
            code: 3,
        }],
    );
    let fixture = Fake {
        driver: Arc::new(driver),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    for (name, case) in cases() {
        eprintln!("{name}");
        runtime.block_on(case(&fixture));
    }
}

#[test]
fn the_fake_driver_conforms() {
    let dir = tempfile::tempdir().expect("a directory");
    run(FakeDriver::new(dir.path()));
}

#[test]
fn it_conforms_without_sleep() {
    let mut driver = FakeDriver::new("/nonexistent");
    for capability in [
        Capability::Pause,
        Capability::FilesystemSnapshot,
        Capability::Checkpoint,
        Capability::Volumes,
    ] {
        driver = driver.without(capability, "not on this machine");
    }
    run(driver);
}

#[test]
fn it_conforms_without_a_network() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut driver = FakeDriver::new(dir.path());
    for capability in [
        Capability::Network,
        Capability::EgressCidr,
        Capability::EgressDomain,
    ] {
        driver = driver.without(capability, "no nft on this machine");
    }
    run(driver);
}
