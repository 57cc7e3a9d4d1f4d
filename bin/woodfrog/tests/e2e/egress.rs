//! Requests with headers that the sandbox does not know, and connections through a proxy.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use woodfrog_testkit::Server;

use crate::cases::check;
use crate::egress_world::{HOST, OUTSIDE, Outside};
use crate::{Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[
    ("egress::headers_are_set_and_stay_secret", headers),
    ("egress::rules_survive_whatever_happens", survival),
    ("egress::connections_go_through_the_proxy", proxied),
    ("egress::ports_inside_may_speak_https", https_ports),
];

const SECRET: &str = "secret-5d1f0c";

/// A server that trusts the outside, and the outside.
fn world(name: &str) -> Result<(Server, Outside)> {
    let dir = data_dir(name);
    let outside = Outside::new(&dir.join("outside"))?;
    let config = dir.join("outside/woodfrog.toml");
    let text = format!(
        "[network]\nname_servers = [\"{}\"]\nextra_ca = \"{}\"\negress_proxies = [\"127.0.0.1\"]\n",
        outside.names,
        dir.join("outside/outside.pem").display(),
    );
    std::fs::write(&config, text)?;
    let config = config.to_str().context("a path that is text")?;
    let server = Server::start(&binary(), &dir.join("data"), &["--config", config])?;
    server.run(&["template", "prepare", "base"])?;
    Ok((server, outside))
}

/// One request to the native API, as the administrator; the status and what was answered.
fn call(server: &Server, method: &str, path: &str, body: &Value) -> Result<(u16, Value)> {
    let key = std::fs::read_to_string(server.data_dir().join("admin.key"))?;
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-m", "120", "-X", method, "-w", "\n%{http_code}"])
        .args(["-H", &format!("X-API-Key: {}", key.trim())])
        .args(["-H", "Content-Type: application/json"])
        .arg(format!("{}/api/v1{path}", server.url()));
    if !body.is_null() {
        curl.args(["-d", &body.to_string()]);
    }
    let output = String::from_utf8(curl.output()?.stdout)?;
    let (text, status) = output.rsplit_once('\n').context("an answer")?;
    let answer = serde_json::from_str(text).unwrap_or(Value::Null);
    Ok((status.parse()?, answer))
}

fn must(server: &Server, method: &str, path: &str, body: &Value) -> Result<Value> {
    let (status, answer) = call(server, method, path, body)?;
    check!(
        (200..300).contains(&status),
        "{method} {path}: {status} {answer}"
    );
    Ok(answer)
}

fn create(server: &Server, network: &Value) -> Result<String> {
    let body = json!({ "template": "base", "network": network });
    let made = must(server, "POST", "/sandboxes", &body)?;
    Ok(made["id"].as_str().context("an id")?.to_owned())
}

fn rules() -> Value {
    json!({ "header_rules": { HOST: { "X-Key": SECRET } } })
}

/// What the outside sees of a request, by curl, by Python and over plain HTTP.
fn seen(server: &Server, id: &str) -> Result<Vec<String>> {
    let python = format!(
        "python3 -c 'import urllib.request as r; print(r.urlopen(\"https://{HOST}/\").read().decode())'"
    );
    let lines = [
        format!("curl -sS -m 20 http://{HOST}/"),
        format!("curl -sS -m 20 https://{HOST}/"),
        python,
    ];
    let asked = lines.iter().map(|line| {
        let answer = server.exec(id, "user", line)?;
        Ok(format!("{}{}", answer.stdout, answer.stderr).to_lowercase())
    });
    asked.collect()
}

fn all_have_the_header(server: &Server, id: &str) -> Result<()> {
    let expected = format!("x-key: {SECRET}");
    for answer in seen(server, id)? {
        check!(answer.contains(&expected), "{answer}");
    }
    Ok(())
}

/// Whether a text is in a file, below a folder too.
fn found(path: &Path, text: &str) -> Result<bool> {
    let status = Command::new("grep")
        .args(["-rqaF", "--", text])
        .arg(path)
        .status()?;
    Ok(status.success())
}

fn headers(_context: &Context) -> Result<()> {
    let (server, outside) = world("egress-headers")?;
    let id = create(&server, &rules())?;
    all_have_the_header(&server, &id)?;
    // The programs' own header does not count.
    let own = format!("curl -sS -m 20 -H 'X-KEY: own' https://{HOST}/");
    let answer = server.exec(&id, "user", &own)?.stdout.to_lowercase();
    check!(
        !answer.contains("own") && answer.contains(SECRET),
        "{answer}"
    );
    // Neither is it anywhere inside, nor told, nor written down.
    let inside = format!(
        "grep -rlaF {SECRET} /etc /run /home /root /usr/local /tmp; cat /proc/*/environ | grep -aF {SECRET}"
    );
    let inside = server.exec(&id, "root", &inside)?;
    check!(inside.stdout.is_empty(), "{inside:?}");
    let told = shown(&server, &id)?;
    check!(told.contains("X-Key") && !told.contains(SECRET), "{told}");
    let (data, log) = (server.data_dir(), server.log());
    check!(!log.contains(SECRET), "in the log");
    for name in ["woodfrog.db", "woodfrog.db-wal", "notes"] {
        check!(!found(&data.join(name), SECRET)?, "in {name}");
    }
    // Others have no part in it: they trust nobody new, and their requests stay as they are.
    let other = create(&server, &json!({}))?;
    let trusted =
        "grep -l woodfrog /etc/ssl/certs/ca-certificates.crt; ls /usr/local/share/ca-certificates";
    let trusted = server.exec(&other, "root", trusted)?;
    check!(trusted.stdout.is_empty(), "{trusted:?}");
    server.remove()?;
    drop(outside);
    Ok(())
}

fn shown(server: &Server, id: &str) -> Result<String> {
    let told = must(server, "GET", &format!("/sandboxes/{id}"), &Value::Null)?;
    Ok(told.to_string())
}

fn put(server: &Server, id: &str, network: &Value) -> Result<()> {
    must(server, "PUT", &format!("/sandboxes/{id}/network"), network).map(drop)
}

fn survival(_context: &Context) -> Result<()> {
    let (mut server, outside) = world("egress-survival")?;
    // Set later.
    let id = create(&server, &json!({}))?;
    let plain = format!("curl -sS -m 5 http://{HOST}/");
    put(&server, &id, &rules())?;
    all_have_the_header(&server, &id)?;
    // The server dies.
    server.kill()?;
    server.restart()?;
    all_have_the_header(&server, &id)?;
    // It sleeps and wakes, frozen and on disk.
    let act = |what: &str| {
        must(
            &server,
            "POST",
            &format!("/sandboxes/{id}/{what}"),
            &json!({}),
        )
    };
    act("pause")?;
    all_have_the_header(&server, &id)?;
    let slept = act("hibernate");
    match &slept {
        Ok(_) => all_have_the_header(&server, &id)?,
        Err(error) => {
            // Only where memory cannot be saved at all.
            check!(error.to_string().contains("CRIU"), "{error}");
        }
    }
    // A copy has the rules, sealed for itself.
    if slept.is_ok() {
        let forked = act("fork")?;
        let copy = forked["items"][0]["sandbox"]["id"]
            .as_str()
            .with_context(|| format!("the copy's id in {forked}"))?;
        all_have_the_header(&server, copy)?;
    }
    // Taken away: nothing is set, and nobody is trusted any more.
    put(&server, &id, &json!({}))?;
    let gone = server.exec(&id, "user", &plain)?;
    check!(!gone.stdout.to_lowercase().contains("x-key"), "{gone:?}");
    let trusted = "grep -c 'woodfrog egress' /etc/ssl/certs/ca-certificates.crt; ls /usr/local/share/ca-certificates; env | grep -c SSL_CERT_FILE";
    let trusted = server.exec(&id, "root", trusted)?;
    check!(trusted.stdout == "0\n0\n", "{trusted:?}");
    server.remove()?;
    drop(outside);
    Ok(())
}

fn proxied(_context: &Context) -> Result<()> {
    let (mut server, outside) = world("egress-proxy")?;
    let proxy = |address: &str| {
        json!({ "egress_proxy": {
            "address": address, "username": "ann", "password": "proxy-secret",
        } })
    };
    let id = create(&server, &proxy(&outside.proxy))?;
    let ask = format!("curl -sS -m 20 http://{OUTSIDE}/");
    let asked = |expected: usize| -> Result<()> {
        let asked = outside.asked.lock().ok().context("the list")?;
        check!(asked.len() == expected, "{asked:?}");
        check!(
            asked.iter().all(|to| to == &format!("{OUTSIDE}:80")),
            "{asked:?}"
        );
        Ok(())
    };
    let answer = server.exec(&id, "user", &ask)?;
    check!(answer.stdout.starts_with("from "), "{answer:?}");
    asked(1)?;
    let told = shown(&server, &id)?;
    check!(
        told.contains("ann") && !told.contains("proxy-secret"),
        "{told}"
    );
    for name in ["woodfrog.db", "woodfrog.db-wal", "notes", "server.log"] {
        check!(
            !found(&server.data_dir().join(name), "proxy-secret")?,
            "in {name}"
        );
    }
    server.kill()?;
    server.restart()?;
    let answer = server.exec(&id, "user", &ask)?;
    check!(answer.stdout.starts_with("from "), "{answer:?}");
    asked(2)?;
    // Denied first; and nothing besides the proxy when that is gone.
    let mut denied = proxy(&outside.proxy);
    denied["deny_out"] = json!([OUTSIDE]);
    put(&server, &id, &denied)?;
    check!(server.exec(&id, "user", &ask)?.code != 0, "it was denied");
    put(&server, &id, &proxy("127.0.0.1:1"))?;
    let answer = server.exec(&id, "user", &ask)?;
    check!(answer.code != 0 && answer.stdout.is_empty(), "{answer:?}");
    check!(
        server.log().contains("its egress proxy cannot be used"),
        "{}",
        server.log()
    );
    asked(2)?;
    // Where no proxy may be.
    for address in [
        "127.0.0.2:1080",
        "169.254.169.254:80",
        "10.0.0.1:1080",
        "no.egress.test:1",
    ] {
        let body = json!({ "template": "base", "network": proxy(address) });
        let (status, refused) = call(&server, "POST", "/sandboxes", &body)?;
        check!(status == 400, "{address}: {refused}");
    }
    server.remove()?;
    drop(outside);
    Ok(())
}

fn https_ports(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = create(server, &json!({ "https_ports": [8443] }))?;
    let serve = r#"cd /tmp && openssl req -x509 -newkey rsa:2048 -nodes -keyout k -out c -days 2 -subj /CN=x 2>/dev/null
cat > s.py <<'END'
import http.server, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("c", "k")
server = http.server.ThreadingHTTPServer(("127.0.0.1", 8443), http.server.SimpleHTTPRequestHandler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
END
echo over tls > page; setsid -f python3 s.py >/dev/null 2>&1 </dev/null
curl -sS -k -o /dev/null --retry 40 --retry-connrefused --retry-delay 1 https://127.0.0.1:8443/"#;
    let started = server.exec(&id, "user", serve)?;
    check!(started.code == 0, "{started:?}");
    let answer = Command::new("curl")
        .args(["-sS", "-m", "20", "-H", &format!("E2b-Sandbox-Id: {id}")])
        .args(["-H", "E2b-Sandbox-Port: 8443"])
        .arg(format!("{}/page", server.url()))
        .output()?;
    let text = String::from_utf8_lossy(&answer.stdout).into_owned();
    check!(text == "over tls\n", "{text} {answer:?}");
    server.run(&["sandbox", "delete", &id])?;
    Ok(())
}
