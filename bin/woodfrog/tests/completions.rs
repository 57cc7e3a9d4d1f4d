//! `woodfrog completions`, the built binary: a shell takes what it prints.

use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn bash_completes_commands_by_the_script() {
    let printed = Command::new(env!("CARGO_BIN_EXE_woodfrog"))
        .args(["completions", "bash"])
        .output()
        .unwrap();
    assert!(printed.status.success(), "{printed:?}");
    assert!(printed.stderr.is_empty(), "{printed:?}");
    let mut script = String::from_utf8(printed.stdout).unwrap();
    // As bash calls it for `woodfrog sand<Tab>`.
    script.push_str(
        "\nCOMP_WORDS=(woodfrog sand); COMP_CWORD=1\n\
         _woodfrog woodfrog sand woodfrog && echo \"${COMPREPLY[@]}\"\n",
    );
    let mut shell = Command::new("bash")
        .args(["--norc", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = shell.stdin.take().unwrap();
    input.write_all(script.as_bytes()).unwrap();
    drop(input);
    let ended = shell.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(String::from_utf8(ended.stdout).unwrap(), "sandbox\n");
}
