//! What a sandbox is: a machine of its own, with what its users expect.

use std::time::Duration;

use anyhow::Result;
use woodfrog_testkit::wait_for;

use crate::cases::check;
use crate::{Case, Context};

pub(crate) const CASES: &[Case] = &[
    ("isolation::a_machine_of_its_own", a_machine_of_its_own),
    (
        "isolation::root_inside_is_nobody_outside",
        root_inside_is_nobody_outside,
    ),
    ("isolation::sudo_works_without_a_password", sudo_works),
    (
        "isolation::sandboxes_do_not_see_each_other",
        sandboxes_do_not_see_each_other,
    ),
    ("isolation::private_kernel_views", private_kernel_views),
    ("isolation::processes_know_where_they_are", environment),
];

fn a_machine_of_its_own(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let seen = server.exec(
        &id,
        "user",
        "hostname; whoami; pwd; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'",
    )?;
    let lines: Vec<&str> = seen.stdout.lines().collect();
    check!(lines.first() == Some(&id.as_str()), "{seen:?}");
    check!(lines.get(1) == Some(&"user"), "{seen:?}");
    check!(lines.get(2) == Some(&"/home/user"), "{seen:?}");
    check!(lines.get(3) == Some(&"guest"), "{seen:?}");
    check!(
        lines
            .get(4)
            .and_then(|n| n.parse::<u32>().ok())
            .is_some_and(|n| n < 12),
        "{seen:?}"
    );
    for tool in ["bash", "python", "python3", "git", "curl", "sudo"] {
        let found = server.exec(&id, "user", &format!("command -v {tool}"))?;
        check!(found.code == 0, "{tool}: {found:?}");
    }
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn root_inside_is_nobody_outside(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let marker = format!("sleep 61.{}", std::process::id());
    let start = server.exec(
        &id,
        "root",
        &format!("setsid -f {marker} >/dev/null 2>&1 </dev/null; id -u"),
    )?;
    check!(start.stdout == "0\n", "{start:?}");
    // It is what `setsid` becomes, a moment later.
    let uids = wait_for("the marker", Duration::from_secs(30), || {
        let uids = uids_of(&marker).ok()?;
        (!uids.is_empty()).then_some(uids)
    })?;
    check!(uids.len() == 1, "{uids:?}");
    check!(!uids[0].starts_with('0'), "{uids:?}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

/// As whom processes with this command line run on the host.
fn uids_of(command: &str) -> Result<Vec<String>> {
    let mut uids = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let read = |name| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
        if read("cmdline").replace('\0', " ").trim() == command {
            let status = read("status");
            let uid = status.lines().find_map(|line| line.strip_prefix("Uid:\t"));
            uids.extend(uid.map(str::to_owned));
        }
    }
    Ok(uids)
}

fn sudo_works(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let seen = server.exec(
        &id,
        "user",
        "sudo -n id -u && sudo -n sh -c 'echo x > /etc/by-root' && cat /etc/by-root",
    )?;
    check!(seen.stdout == "0\nx\n", "{seen:?}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn sandboxes_do_not_see_each_other(context: &Context) -> Result<()> {
    let server = &context.server;
    let (first, second) = (server.create(&["base"])?, server.create(&["base"])?);
    server.exec(
        &first,
        "user",
        "echo secret > ~/mine; setsid -f sleep 62 >/dev/null 2>&1 </dev/null",
    )?;
    let seen = server.exec(
        &second,
        "root",
        "ls /home/user/mine; pgrep -fx 'sleep 62'; ipcs -m | wc -l",
    )?;
    check!(!seen.stdout.contains("/home/user/mine"), "{seen:?}");
    // Its own address, by what it would send from.
    let script = "python3 -c 'import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((\"192.0.2.1\", 9)); print(s.getsockname()[0])'";
    let address = server.exec(&first, "user", script)?;
    let address = address.stdout.trim().to_owned();
    check!(
        !address.is_empty() && !address.starts_with("127."),
        "{address}"
    );
    let script = format!(
        "setsid -f python3 -m http.server 8000 >/dev/null 2>&1 </dev/null; \
         for i in $(seq 450); do curl -sS http://{address}:8000/ && exit 0; sleep 0.1; done; exit 1"
    );
    let itself = server.exec(&first, "user", &script)?;
    check!(itself.code == 0, "{itself:?}");
    let reach = server.exec(
        &second,
        "user",
        &format!("curl -sS -m 3 http://{address}:8000/"),
    )?;
    check!(reach.code != 0, "{reach:?}");
    server.run(&["sandbox", "delete", &first, &second])?;
    Ok(())
}

fn private_kernel_views(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let seen = server.exec(
        &id,
        "root",
        "touch /sys/kernel/x 2>&1; echo 1 > /proc/sysrq-trigger; head -c1 /proc/kcore | wc -c; \
         ls -A /proc/keys /proc/timer_list 2>/dev/null | head; cat /proc/sys/kernel/hostname; ls /dev",
    )?;
    check!(
        !seen.stdout.contains("sda") && !seen.stdout.contains("vda"),
        "{seen:?}"
    );
    check!(
        seen.stdout.lines().any(|line| line == "0"),
        "kcore was readable: {seen:?}"
    );
    check!(seen.stdout.contains("null"), "{seen:?}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn environment(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let shown = server.json(&["sandbox", "show", &id])?;
    let template = shown["template_id"].as_str().unwrap_or_default().to_owned();
    let seen = server.exec(
        &id,
        "user",
        "echo $E2B_SANDBOX $E2B_SANDBOX_ID $E2B_TEMPLATE_ID; test -n \"$E2B_TEAM_ID\"",
    )?;
    check!(
        seen.code == 0 && seen.stdout == format!("true {id} {template}\n"),
        "{shown} {seen:?}"
    );
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}
