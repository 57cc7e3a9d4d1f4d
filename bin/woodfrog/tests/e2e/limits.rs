//! Limits hold, and what is over them fails inside without touching others.

use std::time::Duration;

use anyhow::Result;
use woodfrog_testkit::wait_for;

use crate::cases::check;
use crate::{Case, Context};

pub(crate) const CASES: &[Case] = &[
    ("limits::a_fork_bomb_ends_at_the_pids_limit", fork_bomb),
    ("limits::a_memory_bomb_kills_only_itself", memory_bomb),
    ("limits::a_disk_filler_meets_the_limit", disk_filler),
    ("limits::a_busy_loop_gets_no_more_than_its_share", cpu_share),
];

fn fork_bomb(context: &Context) -> Result<()> {
    let server = &context.server;
    // Enough memory for all of them: here the other limit is meant.
    let (bad, good) = (
        server.create(&["base", "--memory", "3GiB"])?,
        server.create(&["base"])?,
    );
    let script = "python3 -c '
import os, sys
made = 0
try:
    while True:
        if os.fork() == 0:
            import time; time.sleep(20); os._exit(0)
        made += 1
except OSError as error:
    print(made, error.errno)
'";
    let seen = server.exec(&bad, "user", script)?;
    let mut words = seen.stdout.split_whitespace();
    let made: u32 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    check!(
        made > 100 && made < 5000 && words.next() == Some("11"),
        "{seen:?}"
    );
    check!(
        server.exec(&good, "user", "echo fine")?.stdout == "fine\n",
        "the other is affected"
    );
    server.run(&["sandbox", "delete", &bad, &good])?;
    Ok(())
}

fn memory_bomb(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let seen = server.exec(
        &id,
        "user",
        "python3 -c 'x = bytearray(3 << 30)'; echo code $?",
    )?;
    check!(
        seen.stdout.contains("code 137") || seen.stdout.contains("code 1\n"),
        "{seen:?}"
    );
    let alive = wait_for("the sandbox to answer", Duration::from_secs(30), || {
        server
            .exec(&id, "user", "echo alive")
            .ok()
            .filter(|seen| seen.stdout == "alive\n")
    });
    check!(alive.is_ok(), "{alive:?}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn disk_filler(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base", "--disk", "64MiB"])?;
    let seen = server.exec(&id, "user", "head -c 200000000 /dev/zero > ~/fill; stat -c %s ~/fill; rm ~/fill; sync ~; echo ok > ~/again; cat ~/again")?;
    let size: u64 = seen
        .stdout
        .lines()
        .next()
        .and_then(|line| line.parse().ok())
        .unwrap_or(0);
    check!(size > 10_000_000 && size < 80_000_000, "{seen:?}");
    check!(
        seen.stderr.contains("quota") || seen.stderr.contains("space"),
        "{seen:?}"
    );
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn cpu_share(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base", "--cpus", "1"])?;
    let script = "python3 - <<'E'
import os, time, resource
children = []
# The same for all, whenever each begins.
end = time.monotonic() + 3
for _ in range(3):
    pid = os.fork()
    if pid == 0:
        while time.monotonic() < end: pass
        os._exit(0)
    children.append(pid)
for pid in children: os.waitpid(pid, 0)
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(usage.ru_utime + usage.ru_stime)
E";
    let seen = server.exec(&id, "user", script)?;
    let used: f64 = seen.stdout.trim().parse().unwrap_or(99.0);
    check!(used < 4.2, "{seen:?}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}
