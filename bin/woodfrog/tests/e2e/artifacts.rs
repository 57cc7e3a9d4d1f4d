//! Files that runs leave in real sandboxes.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use woodfrog_testkit::{Server, wait_for};

use crate::cases::check;
use crate::{Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[
    ("artifacts::what_a_run_leaves_is_kept_and_served", kept),
    (
        "artifacts::a_run_in_a_sandbox_that_was_there_leaves_its_own",
        shared,
    ),
    ("artifacts::links_and_devices_lead_nowhere", hostile),
    (
        "artifacts::a_server_killed_while_it_keeps_files_keeps_them_all",
        server_killed,
    ),
];

const PATIENCE: Duration = Duration::from_secs(120);

fn start(server: &Server, flags: &[&str], command: &str) -> Result<String> {
    let mut args = vec!["run", "start", "--detach", "--artifacts"];
    args.extend_from_slice(flags);
    args.extend_from_slice(&["--", command]);
    // Cases before have used some of what may be started in a minute.
    let id = wait_for("a start", PATIENCE, || server.run(&args).ok())?;
    Ok(id.trim().to_owned())
}

fn until_over(server: &Server, id: &str) -> Result<Value> {
    wait_for("the run's end", PATIENCE, || {
        let run = server.json(&["run", "show", id]).ok()?;
        Some(run).filter(|run| run["finished_at"].is_i64())
    })
}

/// Path to artifact.
fn artifacts(server: &Server, run: &str) -> Result<BTreeMap<String, Value>> {
    let listed = server.json(&["artifact", "list", "--run", run, "--limit", "1000"])?;
    let listed = listed.as_array().context("a list")?;
    let one = |one: &Value| Some((one["path"].as_str()?.to_owned(), one.clone()));
    Ok(listed.iter().filter_map(one).collect())
}

fn paths(found: &BTreeMap<String, Value>) -> Vec<&str> {
    found.keys().map(String::as_str).collect()
}

/// What the run's log says of its files.
fn told(server: &Server, run: &str) -> Result<Value> {
    let output = server.cli(&["run", "watch", run, "--json"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let events = text.lines().map(serde_json::from_str::<Value>);
    let events = events.collect::<Result<Vec<_>, _>>()?;
    let mut told = events
        .into_iter()
        .map(|event| event["data"]["artifacts"].clone());
    told.find(Value::is_object).context("nothing is told")
}

fn kept(context: &Context) -> Result<()> {
    let server = &context.server;
    let command = "echo hello > a.txt; mkdir -p out/deep .config node_modules/x; \
                   echo '{}' > out/deep/b.json; echo secret > .config/key; \
                   echo no > node_modules/x/i.js; head -c 11000000 /dev/zero > big.bin; \
                   chmod 600 a.txt; rm -f .bashrc; echo outside > /tmp/outside";
    let id = start(server, &[], command)?;
    let run = until_over(server, &id)?;
    check!(run["status"] == "succeeded", "{run}");
    check!(run["stats"]["files_created"] == 3, "{run}");
    let found = artifacts(server, &id)?;
    let expected = ["/home/user/a.txt", "/home/user/out/deep/b.json"];
    check!(paths(&found) == expected, "{found:?}");
    let told = told(server, &id)?;
    check!(told["kept"] == 2, "{told}");
    let left_out = &told["left_out"][0];
    check!(left_out["path"] == "/home/user/big.bin", "{told}");
    check!(left_out["reason"] == "too_large", "{told}");
    // The sandbox is gone; the files are there.
    let sandbox = run["sandbox"].as_str().context("a sandbox")?.to_owned();
    wait_for("its sandbox to go", PATIENCE, || {
        server.run(&["sandbox", "show", &sandbox]).err()
    })?;
    let text = found["/home/user/a.txt"]["id"].as_str().context("an id")?;
    let got = server.run(&["artifact", "get", text])?;
    check!(got == "hello\n", "{got}");
    let approved = server.json(&["artifact", "approve", text])?;
    check!(approved["review"] == "approved", "{approved}");
    let pending = server.json(&["artifact", "list", "--run", &id, "--review", "pending"])?;
    check!(pending.as_array().map(Vec::len) == Some(1), "{pending}");
    server.run(&["run", "delete", &id])?;
    let gone = server.cli(&["artifact", "show", text]).output()?;
    check!(!gone.status.success(), "{gone:?}");
    Ok(())
}

fn shared(context: &Context) -> Result<()> {
    let server = &context.server;
    let sandbox = server.create(&[])?;
    server.exec(
        &sandbox,
        "user",
        "mkdir w; echo 1 > w/old; echo 1 > w/changed",
    )?;
    let flags = ["--sandbox", sandbox.as_str(), "--cwd", "w"];
    let first = start(server, &flags, "echo 2 > new; echo 22 > changed; cat old")?;
    until_over(server, &first)?;
    let found = artifacts(server, &first)?;
    let expected = ["/home/user/w/changed", "/home/user/w/new"];
    check!(paths(&found) == expected, "{found:?}");
    // What the first run left is not what the second does.
    let second = start(server, &flags, "cat new; echo 3 > another; exit 4")?;
    let run = until_over(server, &second)?;
    check!(run["status"] == "failed", "{run}");
    let found = artifacts(server, &second)?;
    check!(paths(&found) == ["/home/user/w/another"], "{found:?}");
    // A file of the template that was changed is in the sandbox's layer as well.
    let flags = ["--sandbox", sandbox.as_str(), "--artifact-path", "/etc"];
    let third = start(server, &flags, "sleep 0")?;
    let run = until_over(server, &third)?;
    check!(run["status"] == "succeeded", "{run}");
    check!(artifacts(server, &third)?.is_empty(), "{run}");
    server.run(&["sandbox", "delete", &sandbox])?;
    Ok(())
}

fn hostile(context: &Context) -> Result<()> {
    let server = &context.server;
    let command = "ln -s /etc/shadow link; ln -s / root; mkfifo pipe; \
                   ln -s ../../../../../../../../etc up; echo x > real; \
                   python3 -c 'import os; open(b\"\\xff\", \"w\").close()' || printf '' > \"$(printf '\\377')\"";
    let id = start(server, &[], command)?;
    let run = until_over(server, &id)?;
    check!(run["status"] == "succeeded", "{run}");
    let found = artifacts(server, &id)?;
    check!(paths(&found) == ["/home/user/real"], "{found:?}");
    let told = told(server, &id)?;
    check!(told["left_out"][0]["reason"] == "name", "{told}");
    Ok(())
}

/// Files of the run that the server is killed at; they are as large as may be.
const MANY: usize = 50;

/// Kills the server while it keeps the files of such a run; which run that is.
fn killed_while_it_keeps(server: &mut Server, command: &str) -> Result<String> {
    let mut before = Value::Null;
    // On a busy machine one can be over before it is seen that it keeps any.
    for _ in 0..5 {
        let id = start(server, &[], command)?;
        wait_for("the first file", PATIENCE, || {
            artifacts(server, &id)
                .ok()
                .filter(|found| !found.is_empty())
        })?;
        before = server.json(&["run", "show", &id])?;
        if before["status"] == "running" {
            server.kill()?;
            return Ok(id);
        }
        server.run(&["run", "delete", &id])?;
    }
    anyhow::bail!("they were over already: {before}")
}

fn server_killed(_: &Context) -> Result<()> {
    let dir = data_dir("artifacts");
    let mut server = Server::start(&binary(), &dir, &[])?;
    server.run(&["template", "prepare", "base"])?;
    let command = format!(
        "for i in $(seq 1 {MANY}); do (echo $i; head -c 10400000 /dev/zero) > f$i; done; sha256sum f*"
    );
    let id = killed_while_it_keeps(&mut server, &command)?;
    server.restart()?;
    let run = until_over(&server, &id)?;
    check!(run["status"] == "succeeded", "{run}");
    check!(run["stats"]["files_created"] == MANY, "{run}");
    let found = artifacts(&server, &id)?;
    check!(found.len() == MANY, "{:?}", paths(&found));
    let output = server.cli(&["run", "watch", &id, "--json"]).output()?;
    let log = String::from_utf8(output.stdout)?;
    for artifact in found.values() {
        let sum = artifact["sha256"].as_str().context("a digest")?;
        let title = artifact["title"].as_str().context("a title")?;
        check!(log.contains(&format!("{sum}  {title}\"")), "{artifact}");
    }
    let last = &found["/home/user/f7"];
    let file = dir.with_extension("got");
    let path = file.to_str().context("a path")?;
    let wanted = last["id"].as_str().context("an id")?;
    server.run(&["artifact", "get", wanted, "--output", path])?;
    let size = std::fs::metadata(&file)?.len();
    std::fs::remove_file(&file)?;
    check!(last["size"] == size, "{last}");
    let left = dir.join("artifacts/baselines");
    wait_for("what was written down to go", PATIENCE, || {
        is_empty(&left).then_some(())
    })?;
    server.run(&["run", "delete", &id])?;
    let workspaces = std::fs::read_dir(dir.join("artifacts/bytes"))?;
    for workspace in workspaces {
        check!(is_empty(&workspace?.path()), "bytes stay");
    }
    server.remove()
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}
