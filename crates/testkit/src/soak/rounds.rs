//! One sandbox that falls asleep and wakes again and again: after each round its memory, its files
//! and its program are what they were before.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::{MEMORY, SAY_EVERY, as_before, left};
use crate::api::Api;
use crate::wait_for;

/// Memory that the program holds.
const HELD_MIB: usize = 16;
/// How long the program may take to come up.
const START_MAX: Duration = Duration::from_secs(60);

/// Holds memory and files. Before each sleep it is told to write a part of both anew (`turn N`);
/// `hash` tells the number of the last turn, its process and the hash of its memory.
const PROGRAM: &str = "
import hashlib, os, socket
parts = [os.urandom(1 << 20) for _ in range(MIB)]
os.makedirs('/root/rounds', exist_ok=True)
turn = 0
server = socket.create_server(('127.0.0.1', 7001))
while True:
    client, _ = server.accept()
    words = client.makefile().readline().split()
    if words[0] == 'turn':
        turn = int(words[1])
        parts[turn % MIB] = os.urandom(1 << 20)
        with open('/root/rounds/%d' % (turn % 8), 'wb') as file:
            file.write(os.urandom(64 << 10))
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    client.sendall(('%d %d %s' % (turn, os.getpid(), digest.hexdigest())).encode())
    client.close()
";

/// How many rounds.
#[derive(Debug, Clone, Copy)]
pub struct Rounds {
    pub count: u64,
    /// Is told how far it is.
    pub say: fn(&str),
}

/// What was done; no difference showed in any of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turned {
    pub paused: u64,
    pub hibernated: u64,
}

impl std::fmt::Display for Turned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (paused, hibernated) = (self.paused, self.hibernated);
        write!(
            f,
            "{} rounds ({paused} paused, {hibernated} hibernated): memory, files and process were \
             the same after each.",
            paused + hibernated
        )
    }
}

/// Puts one sandbox to sleep and wakes it so many times, by turns paused and hibernated, on a
/// server that was started with `--dev` and has no sandboxes.
///
/// # Errors
/// Something was another after a round, or is left on the machine at the end.
pub fn rounds(url: &str, data_dir: &Path, plan: Rounds) -> Result<Turned> {
    let before = left(data_dir);
    let mut api = Api::connect(url)?;
    let id = api.create(MEMORY)?;
    let program = PROGRAM.replace("MIB", &HELD_MIB.to_string());
    api.start(&id, &["/usr/bin/env", "python3", "-c", &program])?;
    let up = wait_for("the program of the rounds", START_MAX, || {
        match ask(&mut api, &id, "turn 0") {
            Ok(answer) if answer.contains(' ') => Some(Ok(())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        }
    });
    up??;
    let mut turned = Turned::default();
    let (began, mut said) = (Instant::now(), Instant::now());
    for round in 1..=plan.count {
        let done = match round % 2 {
            0 => turn(&mut api, &id, round, "pause", "paused").map(|()| turned.paused += 1),
            _ => turn(&mut api, &id, round, "hibernate", "hibernated")
                .map(|()| turned.hibernated += 1),
        };
        done.with_context(|| format!("round {round}"))?;
        if said.elapsed() >= SAY_EVERY {
            said = Instant::now();
            (plan.say)(&format!("{} s: {round} rounds", began.elapsed().as_secs()));
        }
    }
    api.delete(&id)?;
    as_before(data_dir, &before)?;
    Ok(turned)
}

fn turn(api: &mut Api, id: &str, round: u64, what: &str, state: &str) -> Result<()> {
    let written = ask(api, id, &format!("turn {round}"))?;
    ensure!(
        written.starts_with(&format!("{round} ")),
        "the program answered `{written}`"
    );
    api.act(id, what)?;
    let found = api.state(id)?;
    ensure!(found == state, "it is {found} after {what}");
    let back = ask(api, id, "hash")?;
    ensure!(back == written, "`{back}` after {what}, not `{written}`");
    Ok(())
}

/// What the program says, and the hash of the files.
fn ask(api: &mut Api, id: &str, words: &str) -> Result<String> {
    let talk = format!("exec 3<>/dev/tcp/127.0.0.1/7001 && echo {words} >&3 && cat <&3");
    let files = "sha256sum /root/rounds/* | sha256sum";
    let line = format!("{{ {talk}; }} 2>/dev/null && echo \" $({files})\"; true");
    Ok(api.shell(id, &line)?.trim().to_owned())
}
