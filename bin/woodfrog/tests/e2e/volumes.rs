//! Volumes through the built binary: shared while sandboxes live, sleep and are copied, and there
//! when they are gone.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use woodfrog_testkit::{Leftovers, Server, wait_for};

use crate::cases::check;
use crate::sleep::state;
use crate::sleep_crash::own_server;
use crate::{Case, Context};

pub(crate) const CASES: &[Case] = &[
    (
        "volumes::what_one_sandbox_writes_another_reads",
        shared_and_kept,
    ),
    (
        "volumes::one_that_sleeps_wakes_with_the_file_it_had_open",
        asleep_with_an_open_file,
    ),
    ("volumes::copies_have_them_too", copies),
    ("volumes::they_survive_a_kill_of_the_server", over_a_kill),
    (
        "volumes::a_link_at_the_mount_path_leads_nowhere",
        links_lead_nowhere,
    ),
    ("volumes::one_that_is_lost_is_told", lost),
    ("volumes::what_makes_no_sense_is_refused", nonsense),
    (
        "volumes::a_full_one_meets_its_limit_and_harms_no_other",
        full,
    ),
];

/// Notes a number in a file of the volume for ever, through one descriptor.
const WRITER: &str = "setsid -f bash -c 'exec 3>>/mnt/data/log; i=0; while true; do i=$((i+1)); echo \"$HOSTNAME $i\" >&3; sleep 0.05; done' >/dev/null 2>&1 </dev/null";

fn volume(server: &Server, name: &str) -> Result<String> {
    let id = server.run(&["volume", "create", name])?;
    Ok(id.trim().to_owned())
}

fn at(name: &str) -> String {
    format!("{name}:/mnt/data")
}

/// What a command of the sandbox's user prints; it must succeed.
fn say(server: &Server, id: &str, command: &str) -> Result<String> {
    let ran = server.exec(id, "user", command)?;
    check!(ran.code == 0, "{command}: {ran:?}");
    Ok(ran.stdout)
}

/// The error of a command that must fail.
fn refusal(server: &Server, args: &[&str]) -> Result<String> {
    let output = server.cli(args).output()?;
    check!(!output.status.success(), "{args:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Waits until somebody of that name has written more lines than `before`.
fn writes_on(server: &Server, volume: &str, who: &str, before: usize) -> Result<usize> {
    let log = content(server, volume).join("log");
    wait_for("the writer to go on", Duration::from_secs(40), || {
        let text = std::fs::read_to_string(&log).ok()?;
        let mark = format!("{who} ");
        let lines = text.lines().filter(|line| line.starts_with(&mark)).count();
        (lines > before).then_some(lines)
    })
}

/// Where the server keeps the files.
fn content(server: &Server, volume: &str) -> PathBuf {
    let place = server.data_dir().join("pool/volumes").join(volume);
    place.join(volume)
}

fn shared_and_kept(context: &Context) -> Result<()> {
    let server = &context.server;
    let volume = volume(server, "shared")?;
    let before = Leftovers::count(server.data_dir());
    let one = server.create(&["base", "--volume", "shared:/mnt/data"])?;
    let other = server.create(&["base", "--volume", "shared:/home/user/deep/er"])?;
    say(
        server,
        &one,
        "echo hello >/mnt/data/file; mkdir /mnt/data/dir",
    )?;
    let read = say(
        server,
        &other,
        "cat ~/deep/er/file; stat -c %U ~/deep/er/file",
    )?;
    check!(read == "hello\nuser\n", "{read}");
    say(
        server,
        &other,
        "echo back >>~/deep/er/file; mv ~/deep/er/file ~/deep/er/dir/",
    )?;
    let read = say(server, &one, "cat /mnt/data/dir/file")?;
    check!(read == "hello\nback\n", "{read}");
    // What root does there it does to no file of the host's, and with no more rights than inside.
    let tried = "cp /bin/bash /mnt/data/sh; chmod u+s /mnt/data/sh; mknod /mnt/data/null c 1 3; \
                 su user -c '/mnt/data/sh -p -c \"id -u\"'";
    let ran = server.exec(&one, "root", tried)?;
    check!(ran.stdout == "1000\n", "{ran:?}");
    let shown = server.json(&["sandbox", "show", &one])?;
    let mounts = &shown["volumes"];
    let expected = serde_json::json!([{"name": "shared", "path": "/mnt/data"}]);
    check!(*mounts == expected, "{mounts}");
    let said = refusal(server, &["volume", "delete", "shared"])?;
    check!(said.contains(&one) && said.contains(&other), "{said}");
    server.run(&["sandbox", "delete", &one, &other])?;
    let settled = wait_for("everything to be freed", Duration::from_secs(40), || {
        Leftovers::count(server.data_dir())
            .is_within(&before)
            .then_some(())
    });
    let now = Leftovers::count(server.data_dir());
    check!(settled.is_ok(), "before {before:?}\nnow    {now:?}");
    let third = server.create(&["base", "--volume", &at("shared")])?;
    let read = say(server, &third, "cat /mnt/data/dir/file")?;
    check!(read == "hello\nback\n", "{read}");
    server.run(&["sandbox", "delete", &third])?;
    server.run(&["volume", "delete", &volume])?;
    check!(!content(server, &volume).exists(), "its files are left");
    Ok(())
}

fn asleep_with_an_open_file(context: &Context) -> Result<()> {
    let server = &context.server;
    let volume = volume(server, "open")?;
    let id = server.create(&["base", "--volume", &at("open")])?;
    let other = server.create(&["base", "--volume", &at("open")])?;
    say(server, &id, WRITER)?;
    let mut written = writes_on(server, &volume, &id, 0)?;
    for how in ["hibernate", "archive"] {
        server.run(&["sandbox", how, &id])?;
        let state = state(server, &id)?;
        check!(state.starts_with(&how[..how.len() - 1]), "{state}");
        let said = refusal(server, &["volume", "delete", "open"])?;
        check!(said.contains(&id), "{said}");
        say(server, &other, "echo other >>/mnt/data/log")?;
        server.run(&["sandbox", "resume", &id])?;
        written = writes_on(server, &volume, &id, written)?;
    }
    let others = say(server, &id, "grep -c ^other /mnt/data/log")?;
    check!(others == "2\n", "{others}");
    server.run(&["sandbox", "delete", &id, &other])?;
    server.run(&["volume", "delete", "open"])?;
    Ok(())
}

fn copies(context: &Context) -> Result<()> {
    let server = &context.server;
    let volume = volume(server, "copied")?;
    let id = server.create(&["base", "--volume", &at("copied")])?;
    say(server, &id, "echo mine >/mnt/data/file")?;
    let memory = server.run(&["sandbox", "checkpoint", &id])?;
    let files = server.run(&["sandbox", "checkpoint", &id, "--files-only"])?;
    let fork = server.run(&["sandbox", "fork", &id])?;
    let copies = [
        fork.trim().to_owned(),
        server.create(&[memory.trim()])?,
        server.create(&[files.trim()])?,
        server.create(&[files.trim(), "--volume", "copied:/srv/other"])?,
    ];
    for (number, copy) in copies.iter().enumerate() {
        let path = if number == 3 {
            "/srv/other"
        } else {
            "/mnt/data"
        };
        let read = say(
            server,
            copy,
            &format!("cat {path}/file; echo >{path}/of-{number}"),
        )?;
        check!(read == "mine\n", "{number}: {read}");
        check!(
            content(server, &volume)
                .join(format!("of-{number}"))
                .exists(),
            "copy {number} writes elsewhere"
        );
    }
    let said = refusal(
        server,
        &[
            "sandbox",
            "create",
            memory.trim(),
            "--volume",
            "copied:/srv/x",
        ],
    )?;
    check!(said.contains("of its source"), "{said}");
    let mut args = vec!["sandbox", "delete", &id];
    args.extend(copies.iter().map(String::as_str));
    server.run(&args)?;
    // No sandbox has it: a snapshot does not keep it.
    server.run(&["volume", "delete", "copied"])?;
    let said = refusal(server, &["sandbox", "create", files.trim()])?;
    check!(said.contains("volume 'copied'"), "{said}");
    server.run(&["snapshot", "delete", memory.trim(), files.trim()])?;
    Ok(())
}

fn over_a_kill(_: &Context) -> Result<()> {
    let mut server = own_server("volumes")?;
    let volume = volume(&server, "kept")?;
    let awake = server.create(&["base", "--volume", &at("kept")])?;
    let asleep = server.create(&["base", "--volume", &at("kept")])?;
    let mut written = Vec::new();
    for id in [&awake, &asleep] {
        say(&server, id, WRITER)?;
        writes_on(&server, &volume, id, 0)?;
    }
    server.run(&["sandbox", "hibernate", &asleep])?;
    for id in [&awake, &asleep] {
        written.push(writes_on(&server, &volume, id, 0)?);
    }
    server.kill()?;
    server.restart()?;
    let said = refusal(&server, &["volume", "delete", "kept"])?;
    check!(said.contains(&awake) && said.contains(&asleep), "{said}");
    writes_on(&server, &volume, &awake, written[0])?;
    server.run(&["sandbox", "resume", &asleep])?;
    writes_on(&server, &volume, &asleep, written[1])?;
    // One that was adopted can be saved, and boots with it.
    server.run(&["sandbox", "hibernate", &awake, "--files-only"])?;
    let before = writes_on(&server, &volume, &awake, 0)?;
    server.run(&["sandbox", "resume", &awake])?;
    say(&server, &awake, WRITER)?;
    writes_on(&server, &volume, &awake, before)?;
    server.remove()
}

fn links_lead_nowhere(context: &Context) -> Result<()> {
    let server = &context.server;
    volume(server, "trap")?;
    let id = server.create(&["base", "--volume", "trap:/srv/a/b"])?;
    let inner = "mv /srv/a /srv/c; ln -s / /srv/a; mkdir /b; echo seen >/srv/c/b/file";
    let set = server.exec(&id, "root", inner)?;
    check!(set.code == 0, "{set:?}");
    // A directory above may be called otherwise by the time it sleeps.
    server.run(&["sandbox", "hibernate", &id])?;
    let read = say(server, &id, "cat /srv/c/b/file; ls -A /b")?;
    check!(read == "seen\n", "{read}");
    server.run(&["sandbox", "hibernate", &id, "--files-only"])?;
    let said = refusal(server, &["sandbox", "resume", &id])?;
    check!(said.contains("symbolic link"), "{said}");
    let state = state(server, &id)?;
    check!(state == "hibernated", "{state}");
    server.run(&["sandbox", "delete", &id])?;
    server.run(&["volume", "delete", "trap"])?;
    Ok(())
}

fn lost(context: &Context) -> Result<()> {
    let server = &context.server;
    let volume = volume(server, "lost")?;
    let asleep = server.create(&["base", "--volume", &at("lost")])?;
    server.run(&["sandbox", "hibernate", &asleep])?;
    let before = Leftovers::count(server.data_dir());
    std::fs::remove_dir_all(content(server, &volume)).context("lose it")?;
    let said = refusal(
        server,
        &["sandbox", "create", "base", "--volume", &at("lost")],
    )?;
    check!(said.contains("the volume 'lost'"), "{said}");
    let said = refusal(server, &["sandbox", "resume", &asleep])?;
    check!(said.contains("the volume 'lost'"), "{said}");
    let freed = wait_for("nothing more to be there", Duration::from_secs(40), || {
        Leftovers::count(server.data_dir())
            .is_within(&before)
            .then_some(())
    });
    let now = Leftovers::count(server.data_dir());
    check!(freed.is_ok(), "before {before:?}\nnow    {now:?}");
    server.run(&["sandbox", "delete", &asleep])?;
    server.run(&["volume", "delete", "lost"])?;
    Ok(())
}

fn nonsense(context: &Context) -> Result<()> {
    let server = &context.server;
    volume(server, "fine")?;
    for (mounts, why) in [
        (&["fine:/"][..], "root"),
        (&["fine:/proc/x"], "/proc"),
        (&["fine:/a/../../b"], "'..'"),
        (&["fine:/usr"], "/usr/lib/woodfrog"),
        (&["fine:/bin/x"], "symbolic link"),
        (&["fine:/etc/passwd"], "a file"),
        (&["fine:/a", "fine:/b"], "twice"),
        (&["none:/a"], "volume 'none' not found"),
    ] {
        let mut args = vec!["sandbox", "create", "base"];
        for mount in mounts {
            args.extend(["--volume", mount]);
        }
        let said = refusal(server, &args)?;
        check!(said.contains(why), "{mounts:?}: {said}");
    }
    let listed = server.json(&["volume", "list"])?;
    let names = listed.as_array().context("a list")?.iter();
    check!(
        names.map(|one| &one["name"]).any(|name| name == "fine"),
        "{listed}"
    );
    let said = refusal(server, &["volume", "create", "fine"])?;
    check!(said.contains("exists already"), "{said}");
    server.run(&["volume", "delete", "fine"])?;
    let said = refusal(server, &["volume", "delete", "fine"])?;
    check!(said.contains("not found"), "{said}");
    Ok(())
}

/// Asks btrfs for a subvolume, which would have no limit, and prints the error.
const SUBVOLUME: &str = "import fcntl, os, struct
try:
    at = os.open('/mnt/data', os.O_RDONLY)
    fcntl.ioctl(at, 0x5000940e, bytearray(struct.pack('q4088s', 0, b'sub')))
    print('made')
except OSError as error:
    print(error.strerror)";

fn full(context: &Context) -> Result<()> {
    let server = &context.server;
    let limited = server.run(&["volume", "create", "full", "--size", "32MiB"])?;
    volume(server, "beside")?;
    let mounts = [
        "base",
        "--volume",
        "full:/mnt/data",
        "--volume",
        "beside:/mnt/beside",
    ];
    let id = server.create(&mounts)?;
    for user in ["user", "root"] {
        let fill = format!("dd if=/dev/zero of=/mnt/data/{user} bs=1M count=64 conv=fsync");
        let ran = server.exec(&id, user, &fill)?;
        check!(
            ran.code != 0 && ran.stderr.contains("quota exceeded"),
            "{ran:?}"
        );
        let script = format!("python3 -c \"{SUBVOLUME}\"");
        let ran = server.exec(&id, user, &script)?;
        check!(ran.stdout == "Operation not permitted\n", "{ran:?}");
    }
    say(
        server,
        &id,
        "dd if=/dev/zero of=/mnt/beside/more bs=1M count=64 conv=fsync",
    )?;
    // What it takes is known when the file system has written it down.
    let pool = server.data_dir().join("pool");
    let synced = std::process::Command::new("sync")
        .arg("-f")
        .arg(pool)
        .status()?;
    check!(synced.success(), "{synced:?}");
    let shown = server.json(&["volume", "show", "full"])?;
    let (size, used) = (&shown["size_bytes"], shown["used_bytes"].as_u64());
    check!(*size == 32 << 20, "{shown}");
    check!(
        used.is_some_and(|used| (24 << 20..=32 << 20).contains(&used)),
        "{shown}"
    );
    let listed = server.run(&["volume", "list"])?;
    check!(
        listed.contains(limited.trim()) && listed.contains("32MiB"),
        "{listed}"
    );
    // Whoever makes room can write again, after a sleep, too.
    server.run(&["sandbox", "hibernate", &id])?;
    say(server, &id, "rm /mnt/data/* && echo fits >/mnt/data/small")?;
    let said = refusal(server, &["volume", "create", "huge", "--size", "1000TiB"])?;
    check!(said.contains("a volume holds"), "{said}");
    server.run(&["sandbox", "delete", &id])?;
    server.run(&["volume", "delete", "full", "beside"])?;
    Ok(())
}
