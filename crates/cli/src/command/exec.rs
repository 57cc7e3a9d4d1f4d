//! `woodfrog sandbox exec`: the command's output and exit code become ours.

mod session;

use woodfrog_wire::native::exec::Exec;

use super::{Outcome, report};
use crate::args::ExecArgs;
use crate::client::Client;
use crate::output;
use session::{Capture, Live, Session};

/// The command could not be run, or how it ended is not known.
const EXIT_TROUBLE: u8 = 125;

pub(super) async fn run(args: ExecArgs) -> Outcome {
    // Whatever goes wrong on our side must not look like the command's own exit code.
    Ok(match execute(args).await {
        Ok(code) => code,
        Err(error) => match report(&error) {
            code @ super::EXIT_PIPE => code,
            _ => EXIT_TROUBLE,
        },
    })
}

async fn execute(args: ExecArgs) -> Outcome {
    let client = Client::new(&args.target)?;
    let (timeout, json, target) = (args.timeout, args.target.json, args.target.clone());
    let (id, stdin) = (args.id.clone(), args.stdin);
    let session = Session::start(client, target, &id, &request(args), stdin).await?;
    if json {
        let mut capture = Capture::default();
        let end = session.follow(&mut capture).await?;
        output::json(&capture.report(&end))?;
        return Ok(code(end.exit_code, end.signal));
    }
    let end = session.follow(&mut Live).await?;
    if end.timed_out {
        output::note(&format!("the command was killed after {timeout} seconds"));
    }
    Ok(code(end.exit_code, end.signal))
}

fn request(args: ExecArgs) -> Exec {
    let (command, shell) = match args.command.as_slice() {
        [line] if needs_shell(line) => (None, Some(line.clone())),
        _ => (Some(args.command), None),
    };
    Exec {
        command,
        shell,
        env: args.env.into_iter().collect(),
        cwd: args.cwd,
        user: args.user,
        stdin: args.stdin,
        timeout_ms: (args.timeout > 0).then(|| u64::from(args.timeout) * 1000),
        ..Exec::default()
    }
}

/// Whether a single argument is a line for a shell rather than a program's name.
fn needs_shell(line: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "_-./+:@%,".contains(c);
    !line.chars().all(plain)
}

/// As shells report it.
pub(super) fn code(exit_code: Option<i32>, signal: Option<i32>) -> u8 {
    match (exit_code, signal) {
        (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(EXIT_TROUBLE),
        (None, Some(signal)) => u8::try_from(128 + (signal & 0x7f)).unwrap_or(EXIT_TROUBLE),
        (None, None) => EXIT_TROUBLE,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::SandboxCommand;
    use crate::{Cli, Command};

    fn parse(args: &[&str]) -> Exec {
        let words = ["woodfrog", "sandbox", "exec", "sb1"].iter().chain(args);
        match Cli::try_parse_from(words).expect("parses").command {
            Command::Sandbox(SandboxCommand::Exec(args)) => request(args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_word_with_shell_characters_is_a_line() {
        for line in ["echo a", "a|b", "$HOME", "x;y", "A=1", "~/run", "a\nb"] {
            let exec = parse(&[line]);
            assert_eq!((exec.command, exec.shell.as_deref()), (None, Some(line)));
        }
        for word in ["ls", "/usr/bin/python3.12", "g++", "run-me_2"] {
            assert_eq!(parse(&[word]).command.expect("direct"), [word]);
        }
        let words = ["bash", "-c", "echo $HOME | cat"];
        assert_eq!(parse(&words).command.expect("direct"), words);
    }

    #[test]
    fn flags_before_the_command_are_ours() {
        let exec = parse(&[
            "-u",
            "root",
            "-w",
            "/tmp",
            "-e",
            "A=b",
            "--timeout",
            "5",
            "-i",
            "--",
            "cat",
            "-n",
        ]);
        assert_eq!(exec.user.as_deref(), Some("root"));
        assert_eq!(exec.cwd.as_deref(), Some("/tmp"));
        assert_eq!(exec.env["A"], "b");
        assert_eq!(exec.timeout_ms, Some(5000));
        assert!(exec.stdin);
        assert_eq!(exec.command.expect("direct"), ["cat", "-n"]);
        assert_eq!(parse(&["true"]).timeout_ms, None);
    }

    #[test]
    fn exit_codes_are_a_shell_s() {
        assert_eq!(code(Some(3), None), 3);
        assert_eq!(code(Some(256 + 7), None), 7);
        assert_eq!(code(None, Some(9)), 137);
        assert_eq!(code(None, None), EXIT_TROUBLE);
    }
}
