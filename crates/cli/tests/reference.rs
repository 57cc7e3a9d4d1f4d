//! `docs/reference/cli.md` is what `--help` says; `UPDATE=1` writes it anew.

use std::path::Path;

use clap::{Command, CommandFactory};
use woodfrog_cli::Cli;

/// Where lines of help are broken.
const WIDTH: usize = 100;

fn describe(command: &mut Command, name: &str, out: &mut String) {
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let help = lines.join("\n");
    out.push_str(&format!("## {name}\n\n```text\n{}\n```\n\n", help.trim()));
    for sub in command.get_subcommands_mut() {
        if sub.get_name() != "help" && !sub.is_hide_set() {
            let name = format!("{name} {}", sub.get_name());
            describe(sub, &name, out);
        }
    }
}

#[test]
fn the_reference_is_up_to_date() {
    // The values of this process's environment are no part of the help.
    let mut command = Cli::command()
        .term_width(WIDTH)
        .mut_args(|arg| arg.hide_env_values(true))
        .mut_subcommands(hide_values);
    command.build();
    let mut text = String::from(
        "# Command line reference\n\nGenerated from the commands' own help: \
         `UPDATE=1 cargo test -p woodfrog-cli --test reference`.\n\n",
    );
    describe(&mut command, "woodfrog", &mut text);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/cli.md");
    let text = format!("{}\n", text.trim_end());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).expect("write the reference");
        return;
    }
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        known == text,
        "docs/reference/cli.md is not what --help says; run with UPDATE=1"
    );
}

fn hide_values(command: Command) -> Command {
    command
        .term_width(WIDTH)
        .mut_args(|arg| arg.hide_env_values(true))
        .mut_subcommands(hide_values)
}
