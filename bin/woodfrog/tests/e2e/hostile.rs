//! What the inside cannot do, each tried as root of the sandbox.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Result;
use woodfrog_testkit::wait_for;

use crate::cases::check;
use crate::{Case, Context};

pub(crate) const CASES: &[Case] = &[
    ("hostile::forbidden_calls_are_refused", forbidden_calls),
    (
        "hostile::what_a_template_allows_is_allowed_in_its_sandboxes_only",
        allowed_by_template,
    ),
    ("hostile::pid_one_survives_its_root", pid_one_survives),
    (
        "hostile::who_removes_the_guests_socket_loses_the_sandbox_only",
        removed_socket,
    ),
    (
        "hostile::the_host_and_metadata_are_out_of_reach",
        the_host_is_out_of_reach,
    ),
    ("hostile::symlinks_stay_inside", symlinks_stay_inside),
    (
        "hostile::a_guest_that_is_confused_harms_only_itself",
        confused_guest,
    ),
    (
        "hostile::a_socket_that_takes_nobody_holds_nobody_else",
        full_queue,
    ),
];

const MESSAGE_QUEUE: &str = "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None); sys.exit(0 if l.syscall(240,b\"q\",66,384,0)>=0 else 1)'";

/// Commands that must fail, with what they try.
const REFUSED: &[(&str, &str)] = &[
    ("mount a tmpfs", "mount -t tmpfs none /mnt"),
    ("mount a disk", "mknod /tmp/d b 254 0 && head -c1 /tmp/d"),
    ("unmount /proc", "umount -l /proc"),
    ("remount / elsewhere", "mount --bind / /mnt"),
    ("pivot the root", "pivot_root / /"),
    (
        "load a module",
        "python3 -c 'import ctypes,os,sys; l=ctypes.CDLL(None,use_errno=True); sys.exit(0 if l.syscall(313, 0, b\"\", 0)==0 or ctypes.get_errno()!=1 else 1)'",
    ),
    ("make a user namespace", "unshare -U true"),
    ("make a mount namespace", "unshare -m true"),
    ("enter the host's namespaces", "nsenter -t 1 -n true"),
    ("set the clock", "date -s 2001-01-01"),
    ("set a kernel setting", "echo 1 > /proc/sys/kernel/panic"),
    (
        "trace PID 1",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None,use_errno=True); sys.exit(0 if l.ptrace(16,1,0,0)==0 else 1)'",
    ),
    ("read the memory of PID 1", "head -c1 /proc/1/mem"),
    (
        "use io_uring",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None,use_errno=True); r=ctypes.create_string_buffer(256); sys.exit(0 if l.syscall(425,4,r)>=0 else 1)'",
    ),
    (
        "use userfaultfd",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None); sys.exit(0 if l.syscall(323,0)>=0 else 1)'",
    ),
    (
        "use Landlock",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None); sys.exit(0 if l.syscall(444,0,0,1)>=0 else 1)'",
    ),
    ("make a message queue", MESSAGE_QUEUE),
    (
        "load a BPF program",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None); sys.exit(0 if l.syscall(321,5,0,0)>=0 else 1)'",
    ),
    (
        "open a vsock",
        "python3 -c 'import socket; socket.socket(40, socket.SOCK_STREAM)'",
    ),
    (
        "reboot",
        "python3 -c 'import ctypes,sys; l=ctypes.CDLL(None); sys.exit(0 if l.reboot(0x1234567)==0 else 1)'",
    ),
];

fn forbidden_calls(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let mut allowed = Vec::new();
    for (what, command) in REFUSED {
        let seen = server.exec(&id, "root", command)?;
        if seen.code == 0 {
            allowed.push(format!("{what}: {seen:?}"));
        }
    }
    check!(allowed.is_empty(), "{}", allowed.join("\n"));
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

/// Nested namespaces and message queues, switched on for a template of its own.
fn allowed_by_template(context: &Context) -> Result<()> {
    let server = &context.server;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("Dockerfile"), "FROM base\nRUN true\n")?;
    let source = folder.path().display().to_string();
    server.run(&["template", "build", "nesting", &source])?;
    let unshare = |id: &str| server.exec(id, "root", "unshare -U true");
    let before = server.create(&["nesting"])?;
    let refused = unshare(&before)?;
    check!(refused.code != 0, "{refused:?}");

    let allow = ["--allow", "nested-namespaces,message-queues"];
    let said = server.run(&[&["template", "security", "nesting"][..], &allow].concat())?;
    check!(said.contains("cannot be checkpointed"), "{said}");
    let after = server.create(&["nesting"])?;
    let allowed = unshare(&after)?;
    check!(allowed.code == 0, "{allowed:?}");
    let queue = server.exec(&after, "root", MESSAGE_QUEUE)?;
    check!(queue.code == 0, "{queue:?}");
    // What ran before keeps its filter, and the rest is refused as ever.
    let refused = unshare(&before)?;
    check!(refused.code != 0, "{refused:?}");
    let other = server.exec(&after, "root", "mount -t tmpfs none /mnt")?;
    check!(other.code != 0, "{other:?}");

    let off = server.json(&["template", "security", "nesting"])?;
    check!(off["security"]["nested_namespaces"] == false, "{off}");
    check!(off["losses"].as_array().is_some_and(Vec::is_empty), "{off}");
    server.run(&["sandbox", "delete", &before, &after])?;
    server.run(&["template", "delete", "nesting"])?;
    Ok(())
}

fn pid_one_survives(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let before = "setsid -f sleep 1063 >/dev/null 2>&1 </dev/null; cut -d' ' -f22 /proc/1/stat";
    let before = server.exec(&id, "root", before)?;
    check!(before.code == 0, "{before:?}");
    let strike = "for s in KILL TERM INT HUP QUIT STOP SEGV ABRT USR1; do kill -$s 1 || exit 1; done; \
                  echo struck";
    let struck = server.exec(&id, "root", strike)?;
    check!(struck.stdout == "struck\n", "{struck:?}");
    // It is the same PID 1, and what ran before still runs.
    let after = "cut -d' ' -f22 /proc/1/stat; pgrep -cfx 'sleep 1063'";
    let after = server.exec(&id, "user", after)?;
    check!(
        after.stdout == format!("{}1\n", before.stdout),
        "{before:?} {after:?}"
    );
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

/// Root inside removes the socket that the server reaches the guest by.
fn removed_socket(context: &Context) -> Result<()> {
    let server = &context.server;
    let (bad, good) = (server.create(&["base"])?, server.create(&["base"])?);
    let removed = server.exec(&bad, "root", "rm -rf /run/woodfrog && echo removed")?;
    check!(removed.stdout == "removed\n", "{removed:?}");
    let answer = server.exec(&bad, "user", "echo hi")?;
    check!(answer.code != 0 && answer.stdout.is_empty(), "{answer:?}");
    let other = server.exec(&good, "user", "echo fine")?;
    check!(other.stdout == "fine\n", "{other:?}");
    server.run(&["sandbox", "delete", &bad, &good])?;
    Ok(())
}

/// IPv4 addresses of this machine, those of sandboxes' links included.
fn addresses() -> Result<Vec<String>> {
    let output = Command::new("ip").args(["-4", "-o", "addr"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let field = |line: &str| line.split_whitespace().nth(3).map(str::to_owned);
    let found = text.lines().filter_map(field);
    Ok(found
        .filter_map(|address| Some(address.split_once('/')?.0.to_owned()))
        .collect())
}

/// The host listens at all its addresses; nobody comes.
fn the_host_is_out_of_reach(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let listener = TcpListener::bind("0.0.0.0:0")?;
    let port = listener.local_addr()?.port();
    drop(TcpStream::connect(("127.0.0.1", port))?);
    listener.accept()?;
    listener.set_nonblocking(true)?;
    let mut targets = addresses()?;
    check!(targets.len() > 1, "{targets:?}");
    targets.extend(["169.254.169.254", "192.168.0.1", "172.16.0.1"].map(str::to_owned));
    // All at once: each takes its time to fail.
    let mut script = "for target in ".to_owned();
    script += &targets.join(" ");
    script += &format!(
        "; do (curl -sS -m 3 http://$target:{port}/ >/dev/null 2>&1; \
         echo $target $?) & done; wait"
    );
    let seen = server.exec(&id, "root", &script)?;
    let tried: Vec<&str> = seen.stdout.lines().collect();
    check!(tried.len() == targets.len(), "{seen:?}");
    // 7: refused; 28: no answer in time. Anything else is an answer, or no try.
    let failed = |line: &&str| line.ends_with(" 7") || line.ends_with(" 28");
    check!(tried.iter().all(failed), "{seen:?}");
    let came = listener.accept();
    check!(came.is_err(), "{came:?}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

fn symlinks_stay_inside(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let secret = server.data_dir().join("host-secret");
    std::fs::write(&secret, "of the host")?;
    let script = format!(
        "ln -s {} ~/link; ln -s / ~/root; ln -s ../../../../../../../.. ~/up",
        secret.display()
    );
    server.exec(&id, "user", &script)?;
    let host = secret.display().to_string();
    for path in [
        "/home/user/link".to_owned(),
        format!("/home/user/root{host}"),
        format!("/home/user/up{host}"),
        format!("/../../../..{host}"),
        format!("/proc/1/root{host}"),
    ] {
        let copied = server.run(&["sandbox", "cp", &format!("{id}:{path}"), "-"]);
        check!(
            !copied
                .as_ref()
                .is_ok_and(|text| text.contains("of the host")),
            "{path}: {copied:?}"
        );
    }
    let into = format!("{id}:/home/user/link");
    let source = server.data_dir().join("upload");
    std::fs::write(&source, "from inside")?;
    let _ = server.run(&["sandbox", "cp", &source.display().to_string(), &into]);
    check!(
        std::fs::read_to_string(&secret)? == "of the host",
        "the host's file was changed"
    );
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}

/// Root inside replaces the guest's socket with a program that answers rubbish.
fn confused_guest(context: &Context) -> Result<()> {
    let server = &context.server;
    let (bad, good) = (server.create(&["base"])?, server.create(&["base"])?);
    let script = "cd /run/woodfrog && rm -f guest.sock && setsid -f python3 -c '
import socket
s = socket.socket(socket.AF_UNIX); s.bind(\"/run/woodfrog/guest.sock\"); s.listen(64)
while True:
    c, _ = s.accept()
    try: c.sendall(b\"\\xff\" * 100000)
    except OSError: pass
' >/dev/null 2>&1 </dev/null";
    server.exec(&bad, "root", script)?;
    let answer = server.exec(&bad, "user", "echo hi")?;
    check!(answer.code != 0 && answer.stdout.is_empty(), "{answer:?}");
    let other = server.exec(&good, "user", "echo fine")?;
    check!(other.stdout == "fine\n", "{other:?}");
    server.run(&["sandbox", "delete", &bad])?;
    wait_for(
        "the bad sandbox to be gone",
        Duration::from_secs(30),
        || {
            server
                .run(&["sandbox", "show", &bad])
                .is_err()
                .then_some(())
        },
    )?;
    server.run(&["sandbox", "delete", &good])?;
    Ok(())
}

/// Root inside puts a socket in the guest's place whose queue is full: connecting to it would wait
/// for ever. More callers than the server has threads must not hold the server.
fn full_queue(context: &Context) -> Result<()> {
    let server = &context.server;
    let (bad, good) = (server.create(&["base"])?, server.create(&["base"])?);
    let script = "rm -f /run/woodfrog/guest.sock && setsid -f python3 -c '
import socket, time
path = \"/run/woodfrog/guest.sock\"
s = socket.socket(socket.AF_UNIX); s.bind(path); s.listen(0)
held = []
try:
    while True:
        c = socket.socket(socket.AF_UNIX); c.setblocking(False); c.connect(path); held.append(c)
except BlockingIOError: open(\"/tmp/full\", \"w\").close()
time.sleep(600)
' >/dev/null 2>&1 </dev/null; for i in $(seq 450); do test -e /tmp/full && exit 0; sleep 0.1; done; exit 1";
    let prepared = server.exec(&bad, "root", script)?;
    check!(prepared.code == 0, "{prepared:?}");
    let exec = ["sandbox", "exec", &bad, "--", "true"];
    let mut callers = Vec::new();
    for _ in 0..8 {
        let mut call = server.cli(&exec);
        call.stderr(Stdio::piped());
        callers.push(call.spawn()?);
    }
    // The second answer was asked for after the first: no end of a wait let it through.
    for answer in 1..=2 {
        let seen = server.exec(&good, "user", "echo fine")?;
        check!(seen.stdout == "fine\n", "{seen:?}");
        let mut waiting = 0;
        for caller in &mut callers {
            waiting += usize::from(caller.try_wait()?.is_none());
        }
        check!(waiting > 0, "nobody waits any more after answer {answer}");
    }
    for caller in callers {
        let ended = caller.wait_with_output()?;
        check!(!ended.status.success(), "{ended:?}");
    }
    server.run(&["sandbox", "delete", &bad, &good])?;
    Ok(())
}
