//! Files of sandboxes by the API, where their file systems make a difference.

use std::process::Command;

use anyhow::Result;
use serde_json::{Value, json};

use crate::cases::check;
use crate::{Case, Context};

pub(crate) const CASES: &[Case] = &[(
    "files::what_comes_from_the_template_moves_as_anything_else",
    moves,
)];

/// Every template of Debian has it, and nothing in a new sandbox has changed it.
const OF_THE_TEMPLATE: &str = "/etc/skel";

/// Asks to move something as root; status and answer.
fn rename(context: &Context, id: &str, from: &str, to: &str) -> Result<(u16, Value)> {
    let key = std::fs::read_to_string(context.server.data_dir().join("admin.key"))?;
    let key = format!("X-API-Key: {}", key.trim());
    let body = json!({ "from": from, "to": to, "user": "root" }).to_string();
    let url = format!("{}/api/v1/sandboxes/{id}/files/move", context.server.url());
    let output = Command::new("curl")
        .args(["-sS", "-m", "60", "-w", "\n%{http_code}", "-H", &key])
        .args(["-H", "Content-Type: application/json", "-d", &body, &url])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let (body, status) = text.rsplit_once('\n').unwrap_or((&text, "0"));
    let body = serde_json::from_str(body).unwrap_or(Value::Null);
    Ok((status.parse()?, body))
}

/// What is in a directory: kinds, permissions, owners, times, targets and content.
fn listed(context: &Context, id: &str, dir: &str) -> Result<String> {
    let script = format!(
        "cd {dir} && find . -printf '%p %y %m %U %G %T@ %l\\n' | sort && \
         find . -type f -exec sha256sum {{}} + | sort"
    );
    let seen = context.server.exec(id, "root", &script)?;
    check!(seen.code == 0, "{seen:?}");
    Ok(seen.stdout)
}

/// A directory of a lower layer cannot be renamed by the kernel, and neither can what goes to
/// another file system.
fn moves(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let before = listed(context, &id, OF_THE_TEMPLATE)?;
    check!(before.lines().count() > 2, "{before}");
    let way = [
        OF_THE_TEMPLATE,
        "/opt/new/skel",
        "/dev/shm/skel",
        "/home/user/skel",
    ];
    for step in way.windows(2) {
        let (status, moved) = rename(context, &id, step[0], step[1])?;
        check!(status == 200, "{step:?}: {status} {moved}");
        check!(moved["path"] == step[1], "{step:?}: {moved}");
        let now = listed(context, &id, step[1])?;
        check!(now == before, "{step:?}: {now}\nbefore: {before}");
        // Nothing is left where it was, and nothing beside the new place.
        let left = format!("test ! -e {} && ls -A $(dirname {})", step[0], step[1]);
        let left = server.exec(&id, "root", &left)?;
        check!(
            left.code == 0 && !left.stdout.contains(".woodfrog"),
            "{left:?}"
        );
    }
    // What cannot go stays whole.
    let script = "mkdir /opt/odd && echo here > /opt/odd/file && python3 -c '
import socket; socket.socket(socket.AF_UNIX).bind(\"/opt/odd/socket\")'";
    let made = server.exec(&id, "root", script)?;
    check!(made.code == 0, "{made:?}");
    let (status, refused) = rename(context, &id, "/opt/odd", "/dev/shm/odd")?;
    check!(refused["code"] == "invalid_argument", "{status} {refused}");
    let after = "cat /opt/odd/file; ls -A /opt/odd /dev/shm";
    let after = server.exec(&id, "root", after)?;
    let expected = "here\n/dev/shm:\n\n/opt/odd:\nfile\nsocket\n";
    check!(after.stdout == expected, "{after:?}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}
