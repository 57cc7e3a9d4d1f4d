//! Rules about the source tree that no compiler checks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::server::root;
use crate::step::output;

/// Lines of a source file outside tests.
const FILE_LINES_MAX: usize = 800;
/// The crates that may contain `unsafe`.
const UNSAFE_CRATES: &[&str] = &["crates/linux/"];

/// Checks every rule and reports all that is broken.
pub(crate) fn run() -> Result<()> {
    let files = tracked(&["*.rs"])?;
    let mut broken = Vec::new();
    for file in &files {
        let text = std::fs::read_to_string(root().join(file))?;
        check_file(file, &text, &mut broken);
    }
    check_dependencies(&mut broken)?;
    if broken.is_empty() {
        println!("tidy: {} source files checked", files.len());
        return Ok(());
    }
    bail!("{} rules broken:\n  {}", broken.len(), broken.join("\n  "))
}

fn check_file(file: &Path, text: &str, broken: &mut Vec<String>) {
    let shown = file.display();
    let path = file.to_string_lossy();
    let is_test = path.contains("/tests/") || path.ends_with("tests.rs");
    let lines = text.lines().count();
    if lines > FILE_LINES_MAX && !is_test {
        broken.push(format!("{shown}: {lines} lines, at most {FILE_LINES_MAX}"));
    }
    let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    let may_unsafe = UNSAFE_CRATES.iter().any(|dir| path.starts_with(dir));
    if is_root && !may_unsafe && !text.contains("#![forbid(unsafe_code)]") {
        broken.push(format!("{shown}: #![forbid(unsafe_code)] is missing"));
    }
    if !text.starts_with("//!") && !text.starts_with("#!") && !is_test {
        broken.push(format!("{shown}: no module documentation at the top"));
    }
    let marker = ["#[ign", "ore]"].concat();
    if text.contains(&marker) {
        broken.push(format!("{shown}: an ignored test"));
    }
}

/// Every dependency of the workspace has its line in `docs/dependencies.md`.
fn check_dependencies(broken: &mut Vec<String>) -> Result<()> {
    let manifest: toml::Table = std::fs::read_to_string(root().join("Cargo.toml"))?.parse()?;
    let listed = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap_or_default();
    let dependencies = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(toml::Value::as_table);
    for name in dependencies.into_iter().flat_map(|table| table.keys()) {
        if !name.starts_with("woodfrog-") && !listed.contains(&format!("`{name}`")) {
            broken.push(format!("docs/dependencies.md: no line for `{name}`"));
        }
    }
    Ok(())
}

/// Files git knows, below the root.
fn tracked(patterns: &[&str]) -> Result<Vec<PathBuf>> {
    let listed = output(
        Command::new("git")
            .args(["ls-files", "--"])
            .args(patterns)
            .current_dir(root()),
    )?;
    Ok(listed
        .lines()
        .map(PathBuf::from)
        .filter(|file| root().join(file).exists())
        .collect())
}
