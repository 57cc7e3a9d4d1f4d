//! Bad input gets a clear error and leaves nothing.

use anyhow::{Context as _, Result};
use serde_json::Value;
use std::process::Command;
use woodfrog_testkit::Server;

use crate::cases::check;
use crate::{Case, Context, binary, data_dir};

pub(crate) const CASES: &[Case] = &[
    ("errors::e2b_errors_have_code_and_message", e2b_errors),
    (
        "errors::native_errors_are_problems_with_a_code",
        native_errors,
    ),
    ("errors::keys_are_needed_and_revocable", keys),
    ("errors::another_workspace_sees_nothing", tenancy),
    ("errors::the_log_keeps_secrets_at_every_level", secrets),
    ("errors::the_data_directory_is_private", private_data),
    (
        "errors::development_mode_is_said_though_the_log_is_silent",
        development_mode,
    ),
];

/// Status and body of a request.
fn curl(context: &Context, args: &[&str], path: &str) -> Result<(u16, Value)> {
    let url = format!("{}{path}", context.server.url());
    let output = Command::new("curl")
        .args(["-sS", "-m", "20", "-w", "\n%{http_code}"])
        .args(args)
        .arg(url)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let (body, status) = text.rsplit_once('\n').unwrap_or((&text, "0"));
    Ok((
        status.parse()?,
        serde_json::from_str(body).unwrap_or(Value::Null),
    ))
}

fn admin_key(context: &Context) -> Result<String> {
    let file = context.server.data_dir().join("admin.key");
    Ok(std::fs::read_to_string(file)?.trim().to_owned())
}

fn e2b_errors(context: &Context) -> Result<()> {
    let key = format!("X-API-Key: {}", admin_key(context)?);
    let json = "Content-Type: application/json";
    // One byte too many: of more, some would stay unread, and a reset could overtake the answer.
    let (head, tail) = ("{\"templateID\":\"", "\"}");
    let filling = "x".repeat((1 << 20) + 1 - head.len() - tail.len());
    let big = format!("{head}{filling}{tail}");
    let big_file = context.server.data_dir().join("big.json");
    std::fs::write(&big_file, big)?;
    let at_big = format!("@{}", big_file.display());
    let cases: &[(&[&str], &str, &[u16])] = &[
        (&["-H", &key], "/sandboxes/nosuch", &[404]),
        (&["-H", &key, "-X", "DELETE"], "/sandboxes/nosuch", &[404]),
        (
            &["-H", &key, "-H", json, "-d", "{"],
            "/v2/sandboxes",
            &[400],
        ),
        (
            &["-H", &key, "-H", json, "-d", "{}"],
            "/v2/sandboxes",
            &[400],
        ),
        (
            &[
                "-H",
                &key,
                "-H",
                json,
                "-d",
                "{\"templateID\":\"base\",\"timeout\":-1}",
            ],
            "/v2/sandboxes",
            &[400],
        ),
        (
            &["-H", &key, "-H", json, "-d", "{\"templateID\":\"nope\"}"],
            "/v2/sandboxes",
            &[404],
        ),
        (
            &["-H", &key, "-H", json, "-d", &at_big],
            "/v2/sandboxes",
            &[413, 400],
        ),
        (&["-H", &key], "/v2/sandboxes?limit=0", &[400]),
        (&["-H", &key], "/v2/sandboxes?nextToken=rubbish", &[400]),
        (&["-H", &key], "/no/such/route", &[404]),
        (&[], "/v2/sandboxes", &[401]),
        (&["-H", "X-API-Key: e2b_0000"], "/v2/sandboxes", &[401]),
    ];
    for (args, path, wanted) in cases {
        let (status, body) = curl(context, args, path)?;
        check!(wanted.contains(&status), "{path}: {status} {body}");
        check!(body["code"] == status, "{path}: {status} {body}");
        check!(
            body["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{path}: {body}"
        );
    }
    let listed = context.server.json(&["sandbox", "list"])?;
    check!(
        listed.as_array().is_some_and(Vec::is_empty),
        "something was made: {listed}"
    );
    Ok(())
}

fn native_errors(context: &Context) -> Result<()> {
    let key = format!("Authorization: Bearer {}", admin_key(context)?);
    let json = "Content-Type: application/json";
    let cases: &[(&[&str], &str, u16, &str)] = &[
        (
            &["-H", &key],
            "/api/v1/sandboxes/nosuch",
            404,
            "sandbox_not_found",
        ),
        (
            &["-H", &key, "-H", json, "-d", "{\"template\":\"nope\"}"],
            "/api/v1/sandboxes",
            404,
            "template_not_found",
        ),
        (
            &["-H", &key, "-H", json, "-d", "["],
            "/api/v1/sandboxes",
            400,
            "invalid_argument",
        ),
        (&["-H", &key], "/api/v1/nothing", 404, "not_found"),
        (&[], "/api/v1/sandboxes", 401, "unauthenticated"),
    ];
    for (args, path, wanted, code) in cases {
        let (status, body) = curl(context, args, path)?;
        check!(status == *wanted, "{path}: {status} {body}");
        check!(body["code"] == *code, "{path}: {body}");
        check!(
            body["status"] == *wanted && body["title"].is_string(),
            "{path}: {body}"
        );
    }
    Ok(())
}

fn keys(context: &Context) -> Result<()> {
    let server = &context.server;
    let made = server.json(&["key", "create", "for-a-test"])?;
    let secret = made["secret"].as_str().unwrap_or_default().to_owned();
    let id = made["id"].as_str().unwrap_or_default().to_owned();
    check!(secret.starts_with("wf_"), "{made}");
    let listed = server.json(&["key", "list"])?;
    check!(
        !listed.to_string().contains(&secret[3..]),
        "the list shows a secret"
    );
    let as_e2b = format!("X-API-Key: e2b_{}", &secret[3..]);
    check!(
        curl(context, &["-H", &as_e2b], "/v2/sandboxes")?.0 == 200,
        "e2b form of the key"
    );
    let bearer = format!("Authorization: Bearer {secret}");
    check!(
        curl(context, &["-H", &bearer], "/api/v1/keys")?.0 == 403,
        "not an admin key"
    );
    server.run(&["key", "revoke", &id])?;
    check!(
        curl(context, &["-H", &as_e2b], "/v2/sandboxes")?.0 == 401,
        "revoked key"
    );
    check!(
        !server.log().contains(&secret[3..]),
        "the log shows a secret"
    );
    Ok(())
}

fn tenancy(context: &Context) -> Result<()> {
    let server = &context.server;
    let id = server.create(&["base"])?;
    let other = server.json(&["workspace", "create", "another"])?;
    let other = other["id"].as_str().context("the id of a workspace")?;
    let made = server.json(&["key", "create", "other", "--workspace", other])?;
    let key = format!("X-API-Key: {}", made["secret"].as_str().unwrap_or_default());
    for (args, path) in [
        (vec!["-H", &key], format!("/sandboxes/{id}")),
        (vec!["-H", &key, "-X", "DELETE"], format!("/sandboxes/{id}")),
        (
            vec!["-H", &key, "-X", "POST"],
            format!("/v2/sandboxes/{id}/connect"),
        ),
        (vec!["-H", &key], format!("/api/v1/sandboxes/{id}")),
        (
            vec!["-H", &key, "-X", "DELETE"],
            format!("/api/v1/sandboxes/{id}"),
        ),
    ] {
        let (status, body) = curl(context, &args, &path)?;
        check!(status == 404, "{path}: {status} {body}");
    }
    let (_, body) = curl(context, &["-H", &key], "/v2/sandboxes")?;
    check!(body.as_array().is_some_and(Vec::is_empty), "{body}");
    check!(
        server.exec(&id, "user", "echo here")?.stdout == "here\n",
        "it is gone"
    );
    server.run(&["sandbox", "delete", &id])?;
    server.run(&["key", "revoke", made["id"].as_str().unwrap_or_default()])?;
    Ok(())
}

/// A server of its own that logs all it has to say.
fn secrets(_: &Context) -> Result<()> {
    let server = Server::start(&binary(), &data_dir("secrets"), &["--log", "debug"])?;
    server.run(&["template", "prepare", "base"])?;
    let context = Context { server };
    let admin = admin_key(&context)?;
    let key = format!("X-API-Key: {admin}");
    let json = "Content-Type: application/json";
    let body = r#"{"templateID":"base","envVars":{"PASSWORD":"hunter-of-frogs"},
        "network":{"allowPublicTraffic":false}}"#;
    let (status, made) = curl(
        &context,
        &["-H", &key, "-H", json, "-d", body],
        "/v2/sandboxes",
    )?;
    check!(status == 201, "{status} {made}");
    let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
    let (id, access, traffic) = (
        text("sandboxID"),
        text("envdAccessToken"),
        text("trafficAccessToken"),
    );
    check!(access.len() > 16 && traffic.len() > 16, "{made}");
    let sandbox = format!("E2b-Sandbox-Id: {id}");
    let port = "E2b-Sandbox-Port: 49983";
    let token = format!("X-Access-Token: {access}");
    let wrong = "X-Access-Token: not-this-one-either";
    let file = "/files?path=/etc/hostname&username=user";
    for (header, wanted) in [(token.as_str(), 200), (wrong, 401)] {
        let args = ["-H", &sandbox, "-H", port, "-H", header];
        let (status, body) = curl(&context, &args, file)?;
        check!(status == wanted, "{status} {body}");
    }
    let signed = format!("{file}&signature=v1_{}", "s".repeat(43));
    let (status, body) = curl(&context, &["-H", &sandbox, "-H", port], &signed)?;
    check!(status == 401, "{status} {body}");
    let traffic_header = format!("E2B-Traffic-Access-Token: {traffic}");
    let other_port = "E2b-Sandbox-Port: 8080";
    let args = ["-H", &sandbox, "-H", other_port, "-H", &traffic_header];
    let (status, body) = curl(&context, &args, "/?secret=in-the-query")?;
    check!(status == 502, "{status} {body}");
    let echo = context.server.exec(&id, "user", "echo $PASSWORD")?;
    check!(echo.stdout == "hunter-of-frogs\n", "{echo:?}");
    let log = context.server.log();
    check!(log.contains("DEBUG"), "it logs too little to tell");
    let secrets = [
        admin.trim_start_matches("wf_"),
        &access,
        &traffic,
        "hunter-of-frogs",
        "in-the-query",
        "not-this-one-either",
        &"s".repeat(43),
    ];
    for secret in secrets {
        let line = log.lines().find(|line| line.contains(secret));
        check!(line.is_none(), "{secret}: {line:?}");
    }
    context.server.remove()
}

fn private_data(context: &Context) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let dir = context.server.data_dir();
    for (path, wanted) in [(dir.to_owned(), 0o700), (dir.join("admin.key"), 0o600)] {
        let mode = std::fs::metadata(&path)?.permissions().mode() & 0o777;
        check!(mode == wanted, "{}: {mode:o}", path.display());
    }
    let log = context.server.log();
    let key = admin_key(context)?;
    check!(
        !log.contains(key.trim_start_matches("wf_")),
        "the log shows the admin key"
    );
    Ok(())
}

fn development_mode(_: &Context) -> Result<()> {
    let flags = ["--dev", "--spares", "0", "--log", "error"];
    let server = Server::start(&binary(), &data_dir("loud"), &flags)?;
    let said = server.log();
    check!(said.matches("DEVELOPMENT MODE").count() == 1, "{said}");
    check!(!said.contains(" INFO "), "{said}");
    server.remove()
}
