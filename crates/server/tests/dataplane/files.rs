//! Content in and out.

use std::io::{Read as _, Write as _};

use axum::body::Body;
use base64::Engine as _;
use http::Request;
use serde_json::json;
use sha2::Digest as _;

use crate::common::{Answer, TOKEN, World};

async fn put(world: &World, path: &str, content: impl Into<Body>) -> Answer {
    let request = world
        .envd("POST", &format!("/files?path={path}&username=user"))
        .header("content-type", "application/octet-stream")
        .body(content.into())
        .unwrap();
    world.fetch(request).await
}

fn signature(path: &str, operation: &str) -> String {
    let hash = sha2::Sha256::digest(format!("{path}:{operation}:user:{TOKEN}"));
    let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(hash);
    format!("v1_{}", text.replace('+', "%2B").replace('/', "%2F"))
}

#[tokio::test]
async fn content_goes_in_and_comes_out() {
    let world = World::start().await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let written = put(&world, "dir/big.bin", content.clone()).await;
    let path = world.home().join("dir/big.bin");
    assert_eq!(written.status, 200);
    assert_eq!(
        written.json(),
        json!([{"name": "big.bin", "path": path.display().to_string(), "type": "file"}])
    );
    assert_eq!(std::fs::read(&path).unwrap(), content);
    let read = world.get("/files?path=dir/big.bin").await;
    assert_eq!(read.header("content-length"), Some("3000000"));
    assert_eq!(read.header("content-disposition"), Some("inline"));
    assert!(read.body == content);
    use std::os::unix::fs::MetadataExt as _;
    let meta = std::fs::metadata(path.parent().unwrap()).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (54321, 54322));
    put(&world, "empty", "").await;
    let read = world.get("/files?path=empty").await;
    assert_eq!(
        (read.header("content-length"), read.body.len()),
        (Some("0"), 0)
    );
}

async fn compose(world: &World, body: &str) -> Answer {
    let request = world
        .envd("POST", "/files/compose")
        .header("content-type", "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap();
    world.fetch(request).await
}

#[tokio::test]
async fn files_are_joined_into_one() {
    let world = World::start().await;
    for (name, content) in [("a", "one "), ("b", "two "), ("c", "three")] {
        put(&world, name, content).await;
    }
    let home = world.home();
    let body = r#"{"source_paths":["a","~/b","c"],"destination":"new/all","username":"user"}"#;
    let joined = compose(&world, body).await;
    let path = home.join("new/all");
    assert_eq!(joined.status, 200, "{joined:?}");
    assert_eq!(
        joined.json(),
        json!({"name": "all", "path": path.display().to_string(), "type": "file"})
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one two three");
    assert!(!home.join("a").exists() && !home.join("b").exists() && !home.join("c").exists());

    put(&world, "d", "kept").await;
    std::os::unix::fs::symlink(home.join("d"), home.join("link")).unwrap();
    for (body, status) in [
        ("{", 400),
        ("[]", 400),
        (r#"{"source_paths":[],"destination":"x"}"#, 400),
        (r#"{"source_paths":["d"]}"#, 400),
        (r#"{"source_paths":["d","gone"],"destination":"x"}"#, 404),
        (r#"{"source_paths":["d","new"],"destination":"x"}"#, 400),
        (r#"{"source_paths":["/dev/zero"],"destination":"x"}"#, 400),
        (r#"{"source_paths":["d"],"destination":"./new/../d"}"#, 400),
        (r#"{"source_paths":["d"],"destination":"link"}"#, 400),
        (r#"{"source_paths":["d"],"destination":"new"}"#, 400),
        (
            r#"{"source_paths":["d"],"destination":"x","username":"nobody-here"}"#,
            401,
        ),
    ] {
        let refused = compose(&world, body).await;
        assert_eq!(refused.status, status, "{body}: {refused:?}");
        assert_eq!(refused.json()["code"], status, "{body}");
        assert!(!home.join("x").exists(), "{body}");
        assert_eq!(std::fs::read_to_string(home.join("d")).unwrap(), "kept");
    }
    let left: Vec<_> = std::fs::read_dir(&home)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().ends_with(".tmp"))
        .collect();
    assert!(left.is_empty(), "{left:?}");

    let request = world
        .to_port(49983, "POST", "/files/compose")
        .body(Body::from(body))
        .unwrap();
    assert_eq!(world.fetch(request).await.status, 401);
}

#[tokio::test]
async fn kernel_files_that_say_they_are_empty_are_read() {
    let world = World::start().await;
    let read = world
        .get("/files?path=/proc/sys/kernel/random/boot_id")
        .await;
    assert_eq!(read.status, 200);
    let wanted = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(read.body, wanted);
}

#[tokio::test]
async fn gzip_both_ways() {
    let world = World::start().await;
    let plain = "woodfrog ".repeat(10_000);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain.as_bytes()).unwrap();
    let request = world
        .envd("POST", "/files?path=text")
        .header("content-type", "application/octet-stream")
        .header("content-encoding", "gzip")
        .body(Body::from(encoder.finish().unwrap()))
        .unwrap();
    assert_eq!(world.fetch(request).await.status, 200);
    assert_eq!(
        std::fs::read_to_string(world.home().join("text")).unwrap(),
        plain
    );
    let request = world
        .envd("GET", "/files?path=text")
        .header("accept-encoding", "gzip, br");
    let read = world.fetch(request.body(Body::empty()).unwrap()).await;
    assert_eq!(read.header("content-encoding"), Some("gzip"));
    assert!(read.body.len() < plain.len() / 10);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&read.body[..])
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, plain);
    let request = world
        .envd("POST", "/files?path=text")
        .header("content-type", "application/octet-stream")
        .header("content-encoding", "gzip")
        .body(Body::from("nonsense"))
        .unwrap();
    assert_eq!(world.fetch(request).await.status, 400);
}

#[tokio::test]
async fn ranges_and_conditions() {
    let world = World::start().await;
    put(&world, "ten", "0123456789").await;
    let with = async |name: &str, value: &str| {
        let request = world.envd("GET", "/files?path=ten").header(name, value);
        let request = request.header("accept-encoding", "gzip");
        world.fetch(request.body(Body::empty()).unwrap()).await
    };
    let part = with("range", "bytes=2-4").await;
    assert_eq!((part.status, part.text()), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let none = with("range", "bytes=20-").await;
    assert_eq!(
        (none.status, none.header("content-range")),
        (416, Some("bytes */10"))
    );
    let whole = world.get("/files?path=ten").await;
    let tag = whole.header("etag").unwrap().to_owned();
    assert_eq!(with("if-none-match", &tag).await.status, 304);
    let date = whole.header("last-modified").unwrap().to_owned();
    assert_eq!(with("if-modified-since", &date).await.status, 304);
}

#[tokio::test]
async fn forms_carry_many_files() {
    let world = World::start().await;
    let mut form = Vec::new();
    for (name, content) in [("a/1.txt", "one"), ("b/2.txt", ""), ("c 3", "three")] {
        write!(
            form,
            "--bound\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{content}\r\n"
        )
        .unwrap();
    }
    form.extend_from_slice(b"--bound--\r\n");
    let send = async |path: &str, form: Vec<u8>| {
        let request = world
            .envd("POST", path)
            .header("content-type", "multipart/form-data; boundary=bound")
            .header("x-metadata-Owner", "me")
            .body(Body::from(form))
            .unwrap();
        world.fetch(request).await
    };
    let written = send("/files?username=user", form.clone()).await;
    assert_eq!(written.status, 200, "{}", written.text());
    let names: Vec<_> = written
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["name"].clone())
        .collect();
    assert_eq!(
        names,
        ["1.txt", "2.txt", "3"].map(|n| if n == "3" { "c 3" } else { n })
    );
    assert_eq!(std::fs::read(world.home().join("a/1.txt")).unwrap(), b"one");
    assert_eq!(std::fs::read(world.home().join("c 3")).unwrap(), b"three");
    let stat = world
        .call("filesystem.Filesystem/Stat", r#"{"path":"a/1.txt"}"#)
        .await
        .json();
    assert_eq!(stat["entry"]["metadata"], json!({"owner": "me"}));
    // Several files for one path.
    let twice = send("/files?path=only", form.clone()).await;
    assert_eq!(twice.status, 400);
    assert!(
        twice.json()["message"]
            .as_str()
            .unwrap()
            .contains("same path")
    );
    assert_eq!(std::fs::read(world.home().join("only")).unwrap(), b"one");
    form.truncate(form.len() - 12);
    assert_eq!(send("/files", form).await.status, 400);
}

#[tokio::test]
async fn refusals_have_their_texts() {
    let world = World::start().await;
    let home = world.home().display().to_string();
    let lost = world.get("/files?path=nope").await;
    assert_eq!(
        lost.json(),
        json!({"code": 404, "message": format!("path '{home}/nope' does not exist")})
    );
    let dir = world.get("/files?path=/").await;
    assert_eq!((dir.status, dir.json()["code"].as_u64()), (400, Some(400)));
    let user = world.get("/files?path=x&username=nobodyhere").await;
    assert_eq!(user.status, 401);
    let request = world.to_port(49983, "GET", "/files?path=x&username=user");
    let unsigned = world.fetch(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        unsigned.json(),
        json!({"code": 401, "message": "missing signature query parameter"})
    );
    let request = world
        .envd("POST", "/files?path=x")
        .header("content-type", "text/plain");
    assert_eq!(
        world
            .fetch(request.body(Body::from("x")).unwrap())
            .await
            .status,
        400
    );
}

/// A file system of one MiB, unmounted at the end.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(path: std::path::PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        let mut mount = std::process::Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=1m,mode=777", "woodfrog-test"]);
        assert!(mount.arg(&path).status().unwrap().success());
        Self(path)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_507() {
    let world = World::start().await;
    let _small = Small::mount(world.home().join("small"));
    let answer = put(&world, "small/x", "x".repeat(2_000_000)).await;
    assert_eq!(answer.status, 507, "{}", answer.text());
    let text = "attempted to write 2000000 bytes: not enough disk space available";
    assert_eq!(answer.json(), json!({"code": 507, "message": text}));
}

#[tokio::test]
async fn signed_urls_find_their_sandbox() {
    let world = World::start().await;
    put(&world, "hello.txt", "hello").await;
    let bare = async |method: &str, path: String, body: &'static str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", world.address.to_string())
            .header("content-type", "application/octet-stream");
        world.fetch(request.body(Body::from(body)).unwrap()).await
    };
    let read = signature("hello.txt", "read");
    let url = format!("/files?path=hello.txt&username=user&signature={read}");
    assert_eq!(bare("GET", url.clone(), "").await.text(), "hello");
    let wrong = bare("POST", url, "changed").await;
    assert_eq!(
        wrong.json(),
        json!({"code": 401, "message": "invalid signature"})
    );
    let write = signature("hello.txt", "write");
    let url = format!("/files?path=hello.txt&username=user&signature={write}");
    assert_eq!(bare("POST", url, "changed").await.status, 200);
    assert_eq!(
        std::fs::read(world.home().join("hello.txt")).unwrap(),
        b"changed"
    );
}

#[tokio::test]
async fn the_small_routes() {
    let world = World::start().await;
    let metrics = world.get("/metrics").await.json();
    assert!(metrics["mem_total"].as_u64().unwrap() > 0 && metrics["ts"].as_u64().unwrap() > 0);
    assert!(world.get("/envs").await.json().is_object());
    assert_eq!(
        world
            .fetch(world.envd("POST", "/init").body(Body::from("{}")).unwrap())
            .await
            .status,
        415
    );
    assert_eq!(world.get("/nothing").await.status, 404);
    let request = world
        .to_port(49983, "OPTIONS", "/files")
        .header("origin", "https://app.test")
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "x-access-token,authorization",
        );
    let preflight = world.fetch(request.body(Body::empty()).unwrap()).await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(
        preflight.header("access-control-allow-headers"),
        Some("x-access-token,authorization")
    );
}
