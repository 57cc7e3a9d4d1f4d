//! Builds the guest as a static binary, so that the server can carry it inside itself.
//!
//! The guest needs other flags than the server (static, small, no unwinding), hence a cargo run of
//! its own with its own target directory below `OUT_DIR`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for dir in [
        "crates/guest",
        "crates/guest-proto",
        "crates/linux",
        "crates/mock-agent",
    ] {
        println!("cargo:rerun-if-changed={}", root.join(dir).display());
    }
    println!(
        "cargo:rerun-if-changed={}",
        root.join("Cargo.lock").display()
    );
    let target = std::env::var("TARGET").expect("cargo sets TARGET for build scripts");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let target_dir = out.join("guest");
    let status = Command::new(std::env::var_os("CARGO").expect("cargo sets CARGO"))
        .args([
            "build",
            "--package",
            "woodfrog-guest",
            "--bin",
            "woodfrog-guest",
        ])
        .args([
            "--profile",
            "guest",
            "--locked",
            "--target",
            &target,
            "--target-dir",
        ])
        .arg(&target_dir)
        .current_dir(&root)
        // The flags of the outer build would make a dynamic, instrumented or unoptimised guest.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static",
        )
        .status()
        .expect("cargo can be started for the guest");
    assert!(status.success(), "building the guest failed");
    let binary = target_dir.join(&target).join("guest/woodfrog-guest");
    println!("cargo:rustc-env=WOODFROG_GUEST_BINARY={}", binary.display());
}
